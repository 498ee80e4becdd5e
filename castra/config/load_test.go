package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite golden files")

const head = "version = \"0.2\"\n[project]\nname = \"shop\"\n"

// write makes a project of files in a new directory, and gives the path of its
// castra.toml.
func write(t testing.TB, source string, files ...string) string {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	for _, name := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"), 0o644))
	}
	file := filepath.Join(dir, FileName)
	require.NoError(t, os.WriteFile(file, []byte(source), 0o644))
	return file
}

func load(t testing.TB, source string, files ...string) *Project {
	t.Helper()
	p, err := Load(write(t, source, files...))
	require.NoError(t, err)
	return p
}

// faultsOf renders the faults as a user sees them, without the directory.
func faultsOf(t testing.TB, file string) string {
	t.Helper()
	_, err := Load(file)
	var all Faults
	require.ErrorAs(t, err, &all)
	var b strings.Builder
	for _, f := range all {
		require.NotEmpty(t, f.Help, "%v", f)
		b.WriteString(f.Error() + "\n  next: " + f.Hint() + "\n")
	}
	return strings.NewReplacer(filepath.Dir(file)+"/", "", filepath.Dir(file), "DIR").Replace(b.String())
}

func TestDefaults(t *testing.T) {
	file := write(t, head+"[[vms]]\nname = \"web\"\n")
	p, err := Load(file)
	require.NoError(t, err)
	require.Equal(t, &Project{
		File: file, Dir: filepath.Dir(file), Version: "0.2", Name: "shop", Warm: true,
		Lifecycle: Lifecycle{20 * time.Second, 10 * time.Second, 5 * time.Second},
		VMs: []VM{{
			Name: "web-0", Role: "web", CPUs: 2, MemoryMiB: 2048, Network: "user", Warm: true, Line: 4,
			Forwards:  []Forward{{HostIP: "127.0.0.1", GuestPort: 22, Protocol: "tcp"}},
			SSH:       SSH{Port: 22},
			Bootstrap: Bootstrap{Mode: "auto", HandshakeTimeout: 2 * time.Minute, RemoteDir: "/tmp/castra-bootstrap", Env: map[string]string{}},
		}},
		Source: []byte(head + "[[vms]]\nname = \"web\"\n"),
	}, p)
}

func TestEverything(t *testing.T) {
	source, err := os.ReadFile("testdata/full.toml")
	require.NoError(t, err)
	file := write(t, string(source), "base.qcow2", "vmlinuz", "initrd.img", "key", "setup.sh", "payload/index.html")
	p, err := Load(file)
	require.NoError(t, err)
	dir := filepath.Dir(file)
	in := func(name string) string { return filepath.Join(dir, name) }
	require.Equal(t, in(".castra"), p.StateDir)
	require.Equal(t, Lifecycle{0, 2 * time.Second, time.Second}, p.Lifecycle)
	require.Len(t, p.VMs, 3)
	require.Equal(t, VM{
		Name: "web-1", Role: "web", Index: 1, Description: "the shop's front", Image: "small", Overlay: ".castra/overlays/web-1.qcow2",
		CPUs: 2, MemoryMiB: 1536, Network: "user", Warm: true, Line: 21,
		Forwards: []Forward{
			{HostIP: "127.0.0.1", GuestPort: 80, Protocol: "tcp", Line: 28},
			{HostIP: "127.0.0.1", GuestPort: 53, Protocol: "udp", Line: 29},
			{HostIP: "127.0.0.1", GuestPort: 22, Protocol: "tcp"},
		},
		SSH:       SSH{Port: 22},
		Bootstrap: Bootstrap{Mode: "always", HandshakeTimeout: time.Minute, RemoteDir: "/srv/castra", Env: map[string]string{"STAGE": "test"}},
	}, p.VMs[1])
	require.Equal(t, VM{
		Name: "db-0", Role: "db", Description: "the only one", BaseImage: in("base.qcow2"), Overlay: in("disks/db.qcow2"), CPUs: 1, MemoryMiB: 65, Line: 32,
		Checksum: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", DiskMiB: 3 << 19, UserData: in("key"), Arch: "amd64",
		Network: "isolated", Machine: "pc-q35-7.2", CPU: "qemu64,-svm", Firmware: "bios",
		Kernel: in("vmlinuz"), Initrd: in("initrd.img"), Append: "console=ttyS0",
		Forwards: []Forward{{HostIP: "0.0.0.0", HostPort: 2222, GuestPort: 2022, Protocol: "tcp", Line: 51}},
		SSH:      SSH{User: "admin", Identity: in("key"), Port: 2022},
		Bootstrap: Bootstrap{Mode: "auto", Script: in("setup.sh"), Payload: in("payload"), HandshakeTimeout: 9 * time.Second, RemoteDir: "/srv/db",
			Env: map[string]string{"STAGE": "prod", "PASSWORD": "pa$word"}, VerifyCommand: `test -n "$HOME" && echo $$ ${UNSET}`, VerifyPath: "/etc/ready"},
	}, p.VMs[2])
	require.Len(t, p.Warnings, 2)
	require.Equal(t, file+":8: project.features.enable_vm_vizier: there is no vizier any more", p.Warnings[0].Error())
	require.Equal(t, file+":54: vms[1].port_forwards[0].host_ip: other computers can reach the forward on 0.0.0.0", p.Warnings[1].Error())
	p.VMs[0].Forwards[0].HostPort, p.VMs[0].Bootstrap.Env["STAGE"] = 1, "x"
	require.Equal(t, 0, p.VMs[1].Forwards[0].HostPort, "replicas share nothing")
	require.Equal(t, "test", p.VMs[1].Bootstrap.Env["STAGE"], "replicas share nothing")
}

// TestFaults compares what is said of each testdata/faults/*.toml.
func TestFaults(t *testing.T) {
	sources, err := filepath.Glob("testdata/faults/*.toml")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	for _, source := range sources {
		t.Run(strings.TrimSuffix(filepath.Base(source), ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(source)
			require.NoError(t, err)
			file := write(t, string(data), "disk.qcow2", "dir/file", "bootstrap/good/run.sh")
			dir := filepath.Dir(file)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "empty.sh"), nil, 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "crlf.sh"), []byte("#!/bin/sh\r\necho\r\n"), 0o644))
			require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
			require.NoError(t, os.Symlink("disk.qcow2", filepath.Join(dir, "link.qcow2")))
			require.NoError(t, os.Symlink(".", filepath.Join(dir, "here")))
			got := faultsOf(t, file)
			golden := strings.TrimSuffix(source, ".toml") + ".golden"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

func TestEncodings(t *testing.T) {
	good := head + "[[vms]]\nname = \"web\"\n"
	want := load(t, good)
	for name, source := range map[string]string{
		"bom":      "\xef\xbb\xbf" + good,
		"crlf":     strings.ReplaceAll(good, "\n", "\r\n"),
		"bom crlf": "\xef\xbb\xbf" + strings.ReplaceAll(good, "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, source)
			require.Equal(t, source, string(p.Source))
			require.Equal(t, want.VMs, p.VMs)
			require.Equal(t, want.Name, p.Name)
		})
	}
	utf16 := "\xff\xfe"
	for _, c := range good {
		utf16 += string([]byte{byte(c), 0})
	}
	for name, c := range map[string]struct{ source, want string }{
		"two boms":          {"\xef\xbb\xbf\xef\xbb\xbf" + good, ":1: encoding: UTF-8 with two byte-order marks"},
		"utf-16":            {utf16, ":1: encoding: UTF-16, and TOML is UTF-8"},
		"utf-16 without":    {utf16[2:], ":1: encoding: a NUL byte: UTF-16, or no text"},
		"bare cr":           {strings.ReplaceAll(good, "\n", "\r"), ":1: encoding: a CR without LF ends the line"},
		"one bare cr":       {good + "\r", ":6: encoding: a CR without LF ends the line"},
		"nul":               {good + "\x00", ":6: encoding: a NUL byte"},
		"latin-1":           {good + "# caf\xe9", ":6: encoding: a byte that is not UTF-8"},
		"replacement, then": {good + "# \uFFFD\n# \xff", ":7: encoding: a byte that is not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, faultsOf(t, write(t, c.source)), FileName+c.want)
		})
	}
}

func TestUnreadable(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		_, err := Load(filepath.Join(t.TempDir(), FileName))
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = Load(filepath.Join(t.TempDir(), "none", FileName))
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
	t.Run("relative", func(t *testing.T) {
		_, err := Load(FileName)
		require.ErrorContains(t, err, "not an absolute path")
	})
	t.Run("permission", func(t *testing.T) {
		file := write(t, head)
		require.NoError(t, os.Chmod(file, 0))
		if _, err := os.ReadFile(file); err == nil {
			t.Skip("this user may read every file")
		}
		_, err := Load(file)
		require.ErrorIs(t, err, fs.ErrPermission)
	})
	t.Run("fifo", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), FileName)
		require.NoError(t, syscall.Mkfifo(file, 0o644))
		require.Contains(t, faultsOf(t, file), "it is not a regular file")
	})
	t.Run("directory", func(t *testing.T) {
		require.Contains(t, faultsOf(t, t.TempDir()), "it is not a regular file")
	})
	t.Run("size", func(t *testing.T) {
		file := write(t, head)
		require.NoError(t, os.Truncate(file, 1<<30))
		require.Contains(t, faultsOf(t, file), "it is larger than 1024 KiB")
		require.NoError(t, os.WriteFile(file, []byte(head+"[[vms]]\nname = \"web\"\n#"+strings.Repeat("x", sizeLimit-len(head)-len("[[vms]]\nname = \"web\"\n#"))), 0o644))
		st, err := os.Stat(file)
		require.NoError(t, err)
		require.EqualValues(t, sizeLimit, st.Size())
		_, err = Load(file)
		require.NoError(t, err)
	})
}

// TestOneProjectThroughLinks is failure 16: what is the same has one Dir.
func TestOneProjectThroughLinks(t *testing.T) {
	file := write(t, head+"[[vms]]\nname = \"web\"\n")
	dir := filepath.Dir(file)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for _, path := range []string{filepath.Join(link, FileName), link + "//" + FileName, dir + "/sub/../" + FileName, link + "/./sub/../" + FileName} {
		p, err := Load(path)
		require.NoError(t, err, path)
		require.Equal(t, dir, p.Dir, path)
		require.Equal(t, file, p.File, path)
	}
}

func TestFind(t *testing.T) {
	file := write(t, head)
	dir := filepath.Dir(file)
	deep := filepath.Join(dir, "a/b/c")
	require.NoError(t, os.MkdirAll(deep, 0o755))
	for _, from := range []string{dir, deep, dir + "/a/", dir + "/a/b/.."} {
		got, err := Find(from)
		require.NoError(t, err)
		require.Equal(t, file, got)
	}
	nearer := filepath.Join(dir, "a/b", FileName)
	require.NoError(t, os.Symlink("nowhere", nearer))
	got, err := Find(deep)
	require.NoError(t, err)
	require.Equal(t, nearer, got)
	_, err = Load(got)
	require.ErrorIs(t, err, fs.ErrNotExist)

	_, err = Find(file + "/sub")
	require.ErrorIs(t, err, syscall.ENOTDIR)

	empty := t.TempDir()
	_, err = Find(empty)
	var none *NotFoundError
	require.ErrorAs(t, err, &none)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, empty, none.Dir)
	require.Equal(t, "no castra.toml in "+empty+" or above it", err.Error())
	require.NotEmpty(t, none.Hint())
}

func TestFaultsAreErrors(t *testing.T) {
	_, err := Load(write(t, "version = 2\n[project]\nname = 3\n"))
	var all Faults
	require.ErrorAs(t, err, &all)
	require.Len(t, all, 3)
	require.Equal(t, 2, strings.Count(err.Error(), "\n"))
	var one *Error
	require.ErrorAs(t, err, &one)
	require.Same(t, all[0], one)
	require.True(t, errors.Is(err, all[2]))
}
