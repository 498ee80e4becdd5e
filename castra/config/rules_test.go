package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const web = "[[vms]]\nname = \"web\"\n"

// refused tells what is said of a file; "" if it is accepted.
func refused(t testing.TB, source string, files ...string) string {
	t.Helper()
	file := write(t, source, files...)
	if _, err := Load(file); err == nil {
		return ""
	}
	return faultsOf(t, file)
}

// TestMemorySpellings is failure 5.
func TestMemorySpellings(t *testing.T) {
	for spelling, want := range map[any]int{
		"2 GiB": 2048, "2GiB": 2048, "2gib": 2048, "2 Gib": 2048, "2 GB": 2048, "2G": 2048, "2g": 2048,
		"2048M": 2048, "2048": 2048, "2048 MiB": 2048, "2048mb": 2048, " 2 GiB ": 2048, "\t2 GiB": 2048,
		"1.5 GiB": 1536, "0.0625 GiB": 64, "1.0009765625 GiB": 1025, "100.0 MiB": 100,
		"64 MiB": 64, "16777216": 16 << 20, "16384 GiB": 16 << 20,
		2048: 2048, int64(64): 64, int64(16 << 20): 16 << 20,
	} {
		got, err := ParseMemory(spelling)
		require.NoError(t, err, "%q", spelling)
		require.Equal(t, want, got, "%q", spelling)
	}
	for spelling, want := range map[any]string{
		"2 GiBs": "no size", "2 G B": "no size", "-2 GiB": "no size", "1e3": "no size", "٢ GiB": "no size", "２ GiB": "no size", "": "no size",
		"GiB": "no size", "2  GiB": "no size", "2\u00a0GiB": "no size", "0x800": "no size", "+2 GiB": "no size", ".5 GiB": "no size", "2. GiB": "no size",
		"2,5 GiB": "no size", "2 KiB": "no size", "65536 K": "no size", "1 TiB": "no size", "2048 B": "no size", "inf": "no size", "NaN": "no size",
		"99999999999999999999": "no size", strings.Repeat("9", 4096): "no size",
		"1.1 GiB": "not a whole number of MiB", "64.5": "not a whole number of MiB",
		"63": "out of range", "0": "out of range", "1 MiB": "out of range", "16385 GiB": "out of range", "999999999999 GiB": "out of range",
		int64(63): "out of range", int64(-1): "out of range", int64(1 << 62): "out of range", int64(-1 << 63): "out of range",
		2.5: "the float 2.5", true: "the boolean true", nil: "and this is",
	} {
		got, err := ParseMemory(spelling)
		require.ErrorContains(t, err, want, "%q", spelling)
		require.Zero(t, got)
		require.Less(t, len(err.Error()), 120)
	}
}

func TestVersions(t *testing.T) {
	for _, c := range []struct{ version, fault, warning, vm string }{
		{"0.2", "", "", "web-0"},
		{"0.2.0", "", "", "web-0"},
		{"0.2.13", "", "", "web-0"},
		{"0.1", "", "", "web"},
		{"0.1.7", "", "", "web"},
		{"0.3", "", "newer", "web-0"},
		{"0.10.1", "", "newer", "web-0"},
		{"1.0", "", "newer", "web-0"},
		{"0.0.1", "no schema 0.0", "", ""},
		{"0", "no version", "", ""},
		{"", "no version", "", ""},
		{"v0.2", "no version", "", ""},
		{"0.2.x", "no version", "", ""},
		{"00.2", "no version", "", ""},
		{"0.2.0.0", "no version", "", ""},
		{"0.2-rc1", "no version", "", ""},
		{" 0.2", "no version", "", ""},
		{"0.99999", "no version", "", ""},
	} {
		t.Run(c.version, func(t *testing.T) {
			source := fmt.Sprintf("version = %q\n[project]\nname = \"shop\"\n", c.version) + web
			if c.fault != "" {
				require.Contains(t, refused(t, source), c.fault)
				return
			}
			p := load(t, source)
			require.Equal(t, c.version, p.Version)
			require.Equal(t, c.vm, p.VMs[0].Name)
			require.Equal(t, "web", p.VMs[0].Role)
			if c.warning == "" {
				require.Empty(t, p.Warnings)
				return
			}
			require.Len(t, p.Warnings, 1)
			require.Contains(t, p.Warnings[0].Error(), FileName+":1: version: ")
			require.Contains(t, p.Warnings[0].Error(), c.warning)
			require.NotEmpty(t, p.Warnings[0].Help)
		})
	}
}

func TestProjectNames(t *testing.T) {
	named := func(name string) string {
		return "version = \"0.2\"\n" + web + "[project]\nname = " + name + "\n"
	}
	for _, name := range []string{"a", "Shop", "My Shop (2)", "größe", "日本", "..", strings.Repeat("é", 64)} {
		require.Equal(t, name, load(t, named(`"`+name+`"`)).Name)
	}
	for name, want := range map[string]string{
		`""`: "it is empty", `"a/b"`: "path separator", `"a\\b"`: "path separator", `" a"`: "space at one", `"a "`: "space at one",
		`"a\nb"`: "cannot be printed", `"\u001b[31m"`: "cannot be printed", `"a\u202Eb"`: "cannot be printed", `"a\u0000"`: "NUL",
		`"` + strings.Repeat("x", 65) + `"`: "65 characters",
	} {
		got := refused(t, named(name))
		require.Contains(t, got, FileName+":5: project.name: ", name)
		require.Contains(t, got, want)
		require.Equal(t, 2, strings.Count(got, "\n"), "one fault on two lines: %s", got)
	}
}

func TestBadVMNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "/etc/x", "a/b", "-rf", "a-", "a_b", "a.b", "a b", "Web", "a,b", "a=b", "%s", `a\nb`, `a\u0000b`, `\u202Eab`, "é", "x" + strings.Repeat("y", 32), strings.Repeat("x", 300)} {
		got := refused(t, head+"[[vms]]\nname = \""+name+"\"\n")
		require.Contains(t, got, FileName+":5: vms[0].name: ", "%q", name)
	}
}

// TestBadLetters puts what no name may hold at its beginning, in its middle,
// at its end, and alone.
func TestBadLetters(t *testing.T) {
	count := 0
	for _, bad := range []string{"/", "\\", "..", ",", "=", "%", ":", ";", "'", "\"", "`", "$", "~", "*", "?", "#", "&", "|", "<", "(", "[", "{", "!", "@", "+", "^", "_", ".",
		" ", "\t", "\n", "\r", "\x00", "\x1b", "\x7f", "\u0085", "\u202e", "\u2066", "\u200b", "\ufeff", "A", "é", "ａ", "\u212a", "１", "\u0301", strings.Repeat("x", 33)} {
		for _, name := range []string{bad + "b", "a" + bad + "b", "a" + bad, bad} {
			count++
			require.Contains(t, refused(t, head+"[[vms]]\nname = "+quote(name)+"\n"), FileName+":5: vms[0].name: ", "%q", name)
			require.Contains(t, refused(t, head+web+"[[vms.instances]]\nid = "+quote(name)+"\n"), FileName+":7: vms[0].instances[0].id: ", "%q", name)
		}
	}
	require.Greater(t, count, 120)
}

// TestNamesAreSafe: whatever is accepted is one local file name of bounded
// length, before and after its index.
func TestNamesAreSafe(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.OneOf(
			rapid.StringMatching(`[a-z0-9-]{0,34}`),
			rapid.StringMatching(`[a-zA-Z0-9./\\_ ~-]{0,6}`),
			rapid.String(),
		).Draw(rt, "name")
		if !namePattern.MatchString(name) {
			return
		}
		for _, file := range []string{name, name + "-63", name + ".pid"} {
			require.True(rt, filepath.IsLocal(file))
			require.Equal(rt, file, filepath.Base(file))
			require.Equal(rt, file, strings.ToLower(file))
			require.LessOrEqual(rt, len(file), 36)
			require.NotEqual(rt, byte('-'), file[0])
			require.Equal(rt, filepath.Join(dir, file), filepath.Clean(filepath.Join(dir, file)))
		}
	})
}

func TestReplicas(t *testing.T) {
	p := load(t, head+web+"count = 12\noverlay = \"d.d/web\"\n[[vms]]\nname = \"db\"\ncount = 1\noverlay = \"db.qcow2\"\n")
	require.Len(t, p.VMs, 13)
	require.Equal(t, "web-11", p.VMs[11].Name)
	require.Equal(t, 11, p.VMs[11].Index)
	require.Equal(t, filepath.Join(p.Dir, "d.d/web-11"), p.VMs[11].Overlay)
	require.Equal(t, "db-0", p.VMs[12].Name)
	require.Equal(t, filepath.Join(p.Dir, "db.qcow2"), p.VMs[12].Overlay)
	require.Len(t, load(t, head+web+"count = 64\n").VMs, 64)
}

func TestDefaultScripts(t *testing.T) {
	vms := web + "count = 2\n[[vms]]\nname = \"db\"\n"
	p := load(t, head+vms, "bootstrap/web-1/run.sh", "bootstrap/web/run.sh")
	require.Equal(t, filepath.Join(p.Dir, "bootstrap/web/run.sh"), p.VMs[0].Bootstrap.Script)
	require.Equal(t, filepath.Join(p.Dir, "bootstrap/web-1/run.sh"), p.VMs[1].Bootstrap.Script)
	require.Empty(t, p.VMs[2].Bootstrap.Script)

	file := write(t, head+vms, "bootstrap/web/run.sh", "bootstrap/db/run.sh/x")
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "bootstrap/web/run.sh"), []byte("\r\n"), 0o644))
	got := faultsOf(t, file)
	require.Contains(t, got, FileName+":4: vms[0].bootstrap.script: bootstrap/web/run.sh has CRLF")
	require.Contains(t, got, FileName+":7: vms[1].bootstrap.script: bootstrap/db/run.sh is not a regular file")
	require.Equal(t, 1, strings.Count(got, "CRLF"), "said once for all replicas")
}

func TestStateDirs(t *testing.T) {
	state := func(dir string) string { return head + "state_dir = \"" + dir + "\"\n" + web }
	p := load(t, state("x/../.castra/"))
	require.Equal(t, filepath.Join(p.Dir, ".castra"), p.StateDir)
	require.Equal(t, "/srv/castra,1", load(t, state("/srv/castra,1")).StateDir)
	p = load(t, state("../..state"))
	require.Equal(t, filepath.Join(filepath.Dir(p.Dir), "..state"), p.StateDir)
	for _, dir := range []string{".", "./", "..", "../..", "/", "/..", "//", "a/.."} {
		require.Contains(t, refused(t, state(dir)), FileName+":4: project.state_dir: ", "%q", dir)
		require.Contains(t, refused(t, state(dir)), "holds the project itself", "%q", dir)
	}
	require.Contains(t, refused(t, state("")), "it is empty")
	require.Contains(t, refused(t, state("~")), "~ is not expanded")
	require.Contains(t, refused(t, state("/"+strings.Repeat("x/", 3000))), "the path has 6000 bytes")

	file := write(t, state("link/gone/.."))
	require.NoError(t, os.Symlink(filepath.Dir(filepath.Dir(file)), filepath.Join(filepath.Dir(file), "link")))
	require.Contains(t, faultsOf(t, file), "holds the project itself", "also through a link")
}

func TestRemoteDirs(t *testing.T) {
	for _, dir := range []string{defaultRemoteDir, "/opt/castra", "/srv/x", "/home/debian/castra", "/root/x", "/var/lib/castra", "/castra"} {
		require.Empty(t, badRemoteDir(dir), dir)
	}
	for _, dir := range []string{"", ".", "tmp/x", "/", "/etc", "/usr", "/home", "/root", "/var", "/bin", "/tmp", "/opt", "/home/debian", "/var/lib",
		"/etc/castra", "/usr/local/bin", "/dev/shm", "/tmp/x/", "/tmp//x", "/tmp/../etc", "/tmp/./x", "/srv/a\nb", "/srv/b\r"} {
		require.NotEmpty(t, badRemoteDir(dir), dir)
	}
	got := refused(t, head+"[bootstrap]\nremote_dir = \"/etc\"\n"+web+"[[vms]]\nname = \"db\"\n")
	require.Equal(t, 1, strings.Count(got, "remote_dir: "), "said once: %s", got)
}

func TestForwardAddresses(t *testing.T) {
	two := func(a, b string) string {
		return head + web + "port_forwards = [{host = 80, guest = 80" + a + "}]\n[[vms]]\nname = \"db\"\nport_forwards = [{host = 80, guest = 80" + b + "}]\n"
	}
	const udp, all, other = `, protocol = "udp"`, `, host_ip = "0.0.0.0"`, `, host_ip = "127.0.0.2"`
	for _, c := range []struct{ a, b string }{{"", udp}, {"", other}, {udp + all, all}} {
		require.Empty(t, refused(t, two(c.a, c.b)), "%v", c)
	}
	for _, c := range []struct{ a, b string }{{"", ""}, {"", all}, {all, ""}, {all, other}, {all, all}, {udp, udp + all}} {
		require.Contains(t, refused(t, two(c.a, c.b)), FileName+":9: vms[1].port_forwards[0].host: ", "%v", c)
		require.Contains(t, refused(t, two(c.a, c.b)), "taken by vms[0].port_forwards[0] on line 6", "%v", c)
	}
	for _, ip := range []string{"", "localhost", "127.1", "127.0.0.01", "127.0.0.1:80", "127.0.0.0/8", "*", "::", "::ffff:127.0.0.1", "fe80::1%eth0", "٢.0.0.1"} {
		require.Contains(t, refused(t, head+web+"port_forwards = [{guest = 80, host_ip = \""+ip+"\"}]\n"), "vms[0].port_forwards[0].host_ip: ", "%q", ip)
	}
}

func TestForwardToSSH(t *testing.T) {
	ssh := Forward{HostIP: "127.0.0.1", GuestPort: 22, Protocol: "tcp"}
	for _, c := range []struct {
		toml  string
		added bool
	}{
		{"", true},
		{"port_forwards = [{guest = 80}, {guest = 80}]", true},
		{"port_forwards = [{guest = 22}]", false},
		{"port_forwards = [{guest = 22, protocol = \"udp\"}]", true},
		{"ssh.port = 2022\nport_forwards = [{guest = 2022}]", false},
	} {
		forwards := load(t, head+web+c.toml).VMs[0].Forwards
		require.Equal(t, c.added, forwards[len(forwards)-1] == ssh, c.toml)
	}
}

// TestHostileFiles are refused with few words, whatever their size.
func TestHostileFiles(t *testing.T) {
	big := func(s string) string { return strings.Repeat(s, (sizeLimit-1000)/len(s)) }
	for name, c := range map[string]struct{ source, want string }{
		"deep arrays":     {"a = " + big("["), "nested more than 16 deep"},
		"deep tables":     {"a = " + big("{a="), "nested more than 16 deep"},
		"dotted key":      {big("a.") + "a = 1", "more than 16 names"},
		"dotted header":   {"[" + big("a.") + "a]\n", "more than 16 names"},
		"long key":        {head + web + big("x") + " = 1", "more than 128 bytes"},
		"long header":     {"[x." + strings.Repeat("y", 500_000) + "]\n" + manyKeys(40_000), "more than 128 bytes"},
		"long prefix":     {head + web + "[vms" + strings.Repeat("."+strings.Repeat("y", 128), 15) + "]\n" + manyKeys(100_000), "more than 16384 values"},
		"faults":          {head + web + manyKeys(10_000), "more faults"},
		"keys":            {head + web + manyKeys(100_000), "more than 16384 values"},
		"vms":             {head + strings.Repeat(web, 5000), "at most 64"},
		"empty vms":       {head + big("[[vms]]\n"), "more than 16384 values"},
		"inline vms":      {"vms = [" + big("{},") + "]\n" + head, "more than 16384 values"},
		"forwards":        {head + web + strings.Repeat("[[vms.port_forwards]]\nguest = 1\n", 5000), "at most 256"},
		"forwards of all": {head + web + "count = 64\nport_forwards = [{guest = 1}, {guest = 2}, {guest = 3}, {guest = 4}]", "320 forwards"},
		"instances":       {head + web + strings.Repeat("[[vms.instances]]\nid = \"web-0\"\n", 5000), "at most 64"},
		"empty instances": {head + web + big("[[vms.instances]]\n"), "more than 16384 values"},
		"forwards of one": {head + web + "[[vms.instances]]\nid = \"web-0\"\n" + strings.Repeat("[[vms.instances.port_forwards]]\nguest = 1\n", 5000), "at most 256"},
		"id":              {head + web + "[[vms.instances]]\nid = \"" + big("x") + "\"\n", "is no replica of web"},
		"long values":     {head + web + "machine = \"" + strings.Repeat("x", 300_000) + "\"\ncpu = \"" + strings.Repeat("x", 300_000) + "\"\nchecksum = \"" + strings.Repeat("0", 300_000) + "\"\n", "is no digest"},
		"names":           {head + strings.Repeat("[[vms]]\nname = \"../x\"\n", 64) + "[x]\n" + manyKeys(200), "vms[63].name"},
		"spellings":       {head + web + spellings("name"), "name is given too"},
		"array":           {head + web + "description = [" + big("1,") + "]", "more than 16384 values"},
		"count":           {head + web + "count = 4294967295", "out of range"},
		"no end":          {head + web + "description = \"\"\"" + big("x\n"), "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, c.source)
			requireCheap(t, file)
			got := faultsOf(t, file)
			require.Contains(t, got, c.want)
			require.Less(t, len(got), 50_000)
		})
	}
}

// requireCheap checks that a faulty file is refused within 50 MB of memory.
func requireCheap(t *testing.T, file string) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Load(file)
	runtime.ReadMemStats(&after)
	require.Error(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(50<<20))
}

// spellings gives a key in all letter cases but its own.
func spellings(key string) string {
	var b strings.Builder
	for mask := 1; mask < 1<<len(key); mask++ {
		for i := range len(key) {
			letter := key[i : i+1]
			if mask>>i&1 == 1 {
				letter = strings.ToUpper(letter)
			}
			b.WriteString(letter)
		}
		b.WriteString(" = 1\n")
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d=1\n", i)
	}
	return b.String()
}

func TestSuggestions(t *testing.T) {
	known := []string{"base_image", "count", "cpus", "memory", "name", "port_forwards", "ssh"}
	for key, want := range map[string]string{
		"mem": "memory", "memroy": "memory", "Memory": "memory", "MEMORY_MIB": "memory", "base-image": "base_image", "baseimage": "base_image",
		"cpu": "cpus", "port_forward": "port_forwards", "counts": "count",
		"id": "", "xx": "", "sh": "ssh", "": "", "qwerty": "", strings.Repeat("name", 20): "",
	} {
		require.Equal(t, want, nearest(key, known), "%q", key)
	}
	require.Equal(t, "keys are in lower case: write name", suggestion("Name", known, places))
	require.Equal(t, "known here: "+strings.Join(known, ", "), suggestion("qwerty", known, places))
}

// TestNoGoTypes: faults speak of TOML alone.
func TestNearestNames(t *testing.T) {
	known := []string{"alpine-3.23", "debian-13", "fedora-44", "small", "ubuntu-24.04"}
	for name, want := range map[string]string{"debain-13": "debian-13", "Debian-13": "debian-13", "debian": "debian-13", "alpine": "alpine-3.23", "smal": "small", "windows": "", "": ""} {
		require.Equal(t, want, Nearest(name, known), name)
	}
}

func TestNoGoTypes(t *testing.T) {
	goldens, err := filepath.Glob("testdata/faults/*.golden")
	require.NoError(t, err)
	require.NotEmpty(t, goldens)
	golang := regexp.MustCompile(`\b(int64|float64|bool\b|map\[|interface|struct|slice|nil|time\.|toml\.)`)
	for _, golden := range goldens {
		data, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.NotRegexp(t, golang, string(data), golden)
	}
}
