package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// requireSnapshot checks that a project comes back from its snapshot.
func requireSnapshot(t rapid.TB, p *Project) {
	t.Helper()
	file := filepath.Join(p.Dir, "snapshot.toml")
	require.NoError(t, os.WriteFile(file, p.Snapshot(), 0o600))
	got, err := LoadSnapshot(file, p.File)
	require.NoError(t, err, "%s", p.Snapshot())
	require.Equal(t, recordable(p), recordable(got), "%s", p.Snapshot())
	require.Equal(t, string(recordable(p).Snapshot()), string(recordable(got).Snapshot()))
}

// recordable is a copy without what a snapshot does not hold.
func recordable(p *Project) *Project {
	c := *p
	c.Source, c.Warnings, c.Synthetic, c.VMs = nil, nil, false, nil
	for _, vm := range p.VMs {
		vm.Line, vm.Bootstrap.Env = 0, nil
		all := vm.Forwards
		vm.Forwards = nil
		for _, f := range all {
			f.Line = 0
			vm.Forwards = append(vm.Forwards, f)
		}
		c.VMs = append(c.VMs, vm)
	}
	return &c
}

func TestSnapshotGolden(t *testing.T) {
	source, err := os.ReadFile("testdata/full.toml")
	require.NoError(t, err)
	p, err := Load(write(t, string(source)+`
[[vms]]
name = "mixed"
count = 3
[[vms.instances]]
id = "mixed-0"
base_image = "base.qcow2"
cpus = 1
[[vms.instances]]
id = "mixed-2"
description = "quote \" backslash \\ tab \t escape \u001b"
port_forwards = [{ guest = 22, host = 2200 }]
`, "base.qcow2", "vmlinuz", "initrd.img", "key", "setup.sh", "payload/index.html"))
	require.NoError(t, err)
	got := strings.ReplaceAll(string(p.Snapshot()), p.Dir, "/DIR")
	if *update {
		require.NoError(t, os.WriteFile("testdata/snapshot.golden", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/snapshot.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
	require.NotContains(t, got, "pa$word")
	require.NotContains(t, got, "prod")
	require.Contains(t, got, "PASSWORD, STAGE")
	requireSnapshot(t, p)
}

// TestSnapshotsComeBack draws projects and compares each with what its
// snapshot gives.
func TestSnapshotsComeBack(t *testing.T) {
	dir := filepath.Dir(write(t, "", "disk.qcow2", "other.qcow2", "key", "run.sh", "setup/run.sh", "payload/x", "bootstrap/auto/run.sh"))
	file := filepath.Join(dir, FileName)
	rapid.Check(t, func(rt *rapid.T) {
		require.NoError(rt, os.WriteFile(filepath.Join(dir, "setup", besideName), []byte(drawBeside(rt)), 0o644))
		source := drawProject(rt)
		require.NoError(rt, os.WriteFile(file, []byte(source), 0o644))
		p, err := Load(file)
		require.NoError(rt, err, "%s", source)
		requireSnapshot(rt, p)
	})
}

// some draws one of the lines, or none.
func some(rt *rapid.T, lines ...string) string {
	return rapid.SampledFrom(append(lines, "")).Draw(rt, "line")
}

func drawBeside(rt *rapid.T) string {
	return some(rt, "ssh.user = \"u\"\n") + some(rt, "ssh.host = \"example.org\"\n") + some(rt, "ssh.port = 24\n") + some(rt, "env.SECRET = \"x\"\n")
}

func drawProject(rt *rapid.T) string {
	single := rapid.Bool().Draw(rt, "single")
	var b strings.Builder
	fmt.Fprintf(&b, "version = %q\n", map[bool]string{true: "0.1.3", false: "0.2"}[single])
	b.WriteString("[project]\nname = \"Größe \\\" \\u0041 #\"\n" + some(rt, "state_dir = \".castra\"\n", "state_dir = \"/srv/a,b \\\"c\\\"\"\n") + some(rt, "warm = false\n", "warm = true\n"))
	b.WriteString("[lifecycle]\n" + some(rt, "graceful_shutdown_wait_secs = 0\n") + some(rt, "sigkill_wait_secs = 86400\n"))
	b.WriteString("[bootstrap]\n" + some(rt, "mode = \"skip\"\n") + some(rt, "env.A = \"1\"\n") + some(rt, "remote_dir = \"/srv/'x\\ty'\"\n"))
	port := 1000
	for n := range rapid.IntRange(1, 3).Draw(rt, "roles") {
		name := fmt.Sprintf("r%d", n)
		if n == 1 {
			name = "auto"
		}
		fmt.Fprintf(&b, "[[vms]]\nname = %q\n", name)
		count := 1
		if !single && rapid.Bool().Draw(rt, "many") {
			count = rapid.IntRange(1, 4).Draw(rt, "count")
			fmt.Fprintf(&b, "count = %d\n", count)
		}
		b.WriteString(some(rt, "description = \"\"\"two\nlines \\u007f\"\"\"\n") + some(rt, "image = \"small\"\n", "image = \"debian-13\"\n", "base_image = \"disk.qcow2\"\n", fmt.Sprintf("base_image = \"https://example.org/a%%20b?c.qcow2\"\nchecksum = \"sha512:%0128x\"\n", 7)))
		b.WriteString(some(rt, fmt.Sprintf("overlay = \".castra/%s.qcow2\"\n", name), fmt.Sprintf("overlay = \"x/%s\"\n", name)))
		b.WriteString(some(rt, "cpus = 7\n") + some(rt, "warm = false\n", "warm = true\n") + some(rt, "memory = \"1.5 GiB\"\n") + some(rt, "network = \"isolated\"\n") + some(rt, "machine = \"pc\"\n") + some(rt, "cpu = \"max,+x\"\n") + some(rt, "disk = 20480\n") + some(rt, "user_data = \"key\"\n") + some(rt, "arch = \"x86_64\"\n"))
		b.WriteString(some(rt, "kernel = \"key\"\ninitrd = \"key\"\nappend = \"a=\\\"b\\\" c\"\n", "firmware = \"uefi\"\n", "firmware = \"bios\"\n"))
		b.WriteString(some(rt, "port_forwards = [{ guest = 80 }, { guest = 53, protocol = \"udp\", host_ip = \"0.0.0.0\" }]\n"))
		b.WriteString(some(rt, "ssh.port = 2022\n") + some(rt, "ssh.identity = \"key\"\n"))
		b.WriteString(some(rt, "bootstrap = { script = \"run.sh\", payload = \"payload\", verify_command = 'a \"b\" $c', verify_path = \"/x\", env.B = \"2\" }\n", "bootstrap.script = \"setup/run.sh\"\n"))
		for i := range count {
			if single || rapid.Bool().Draw(rt, "plain") {
				continue
			}
			port++
			fmt.Fprintf(&b, "[[vms.instances]]\nid = \"%s-%d\"\n", name, i)
			b.WriteString(some(rt, "description = \"\"\n", "description = \"x\"\n") + some(rt, "base_image = \"other.qcow2\"\n", fmt.Sprintf("base_image = \"https://example.org/o\"\nchecksum = \"sha256:%064x\"\n", 9)))
			b.WriteString(some(rt, fmt.Sprintf("overlay = \".castra/o%d.qcow2\"\n", port), fmt.Sprintf("overlay = \"o%d\"\n", port)))
			b.WriteString(some(rt, "cpus = 1\n") + some(rt, "memory = 64\n"))
			b.WriteString(some(rt, "port_forwards = []\n", fmt.Sprintf("port_forwards = [{ host = %d, guest = 80 }]\n", port)))
		}
	}
	return b.String()
}

// TestSnapshotWithoutFiles is failure 8: castra.toml and all that it names may
// be gone, or be something else by now.
func TestSnapshotWithoutFiles(t *testing.T) {
	source, err := os.ReadFile("testdata/full.toml")
	require.NoError(t, err)
	p, err := Load(write(t, string(source), "base.qcow2", "vmlinuz", "initrd.img", "key", "setup.sh", "payload/index.html"))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "snapshot.toml")
	for name, content := range map[string][]byte{"resolved": p.Snapshot(), "as written": p.Source, "with a byte-order mark": append([]byte("\xef\xbb\xbf"), p.Source...)} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(file, content, 0o600))
			for _, origin := range []string{p.File, "/nowhere/at/all/castra.toml"} {
				if origin == p.File {
					require.NoError(t, os.WriteFile(p.File, []byte("[[vms"), 0o644))
					require.NoError(t, os.WriteFile(filepath.Join(p.Dir, "setup.sh"), nil, 0o644))
					_ = os.Remove(filepath.Join(p.Dir, "base.qcow2"))
				}
				got, err := LoadSnapshot(file, origin)
				require.NoError(t, err)
				require.Equal(t, origin, got.File)
				require.Equal(t, filepath.Dir(origin), got.Dir)
				if origin == p.File {
					require.Equal(t, recordable(p), recordable(got))
				}
			}
		})
	}
}

// TestSnapshotIgnoresWhatCameLater: a script and a bootstrap.toml that are
// there now were not what was used.
func TestSnapshotIgnoresWhatCameLater(t *testing.T) {
	p := load(t, head+web)
	script := filepath.Join(p.Dir, "bootstrap/web/run.sh")
	require.NoError(t, os.MkdirAll(filepath.Dir(script), 0o755))
	require.NoError(t, os.WriteFile(script, []byte("\r\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(script), besideName), []byte("[["), 0o644))
	requireSnapshot(t, p)
}

// TestSnapshotOnAChangedDisk: what the paths lead to by now is no fault.
func TestSnapshotOnAChangedDisk(t *testing.T) {
	p := load(t, head+"state_dir = \"state\"\n"+web+"overlay = \"a/o\"\n[[vms]]\nname = \"db\"\noverlay = \"b/o\"\n")
	in := func(name string) string { return filepath.Join(p.Dir, name) }
	require.NoError(t, os.WriteFile(in("state"), nil, 0o644))
	require.NoError(t, os.MkdirAll(in("a/o"), 0o755))
	require.NoError(t, os.Symlink("a", in("b")))
	requireSnapshot(t, p)
}

func TestSnapshotFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot.toml")
	_, err := LoadSnapshot(file, "/x/castra.toml")
	require.ErrorIs(t, err, os.ErrNotExist)
	for content, want := range map[string]string{"[[vms": file + ":1:", head: file + ":1: vms: there is no VM", head + web + "later = 1\n": file + ":6: vms[0].later: unknown key"} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		_, err := LoadSnapshot(file, "/x/castra.toml")
		require.ErrorContains(t, err, want)
	}
}

// TestSnapshotsOfOddDirectories: a directory's name may hold what TOML cannot.
func TestSnapshotsOfOddDirectories(t *testing.T) {
	for _, name := range []string{"a b", "a,b=on", `q"q`, `back\slash`, "new\nline", "\x1b[31m", "größe", "\xff\xfe", "'''", "#", "\u202e", "$HOME"} {
		dir := filepath.Join(filepath.Dir(write(t, "")), name)
		require.NoError(t, os.Mkdir(dir, 0o755))
		for _, file := range []string{"disk.qcow2", "run.sh"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte("x"), 0o644))
		}
		file := filepath.Join(dir, FileName)
		require.NoError(t, os.WriteFile(file, []byte(head+"state_dir = \".castra\"\n"+web+"base_image = \"disk.qcow2\"\noverlay = \"o\"\nbootstrap.script = \"run.sh\"\n"), 0o644))
		p, err := Load(file)
		require.NoError(t, err, "%q", name)
		requireSnapshot(t, p)
	}
}
