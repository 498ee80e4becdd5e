package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSynthesize(t *testing.T) {
	dir := filepath.Join(filepath.Dir(write(t, "")), "My Shop")
	require.NoError(t, os.Mkdir(dir, 0o755))
	want := &Project{
		File: filepath.Join(dir, FileName), Dir: dir, Synthetic: true, Version: "0.2", Name: "My Shop", Warm: true,
		Lifecycle: Lifecycle{20 * time.Second, 10 * time.Second, 5 * time.Second},
		VMs: []VM{{
			Name: "vm-0", Role: "vm", Image: "small", CPUs: 2, MemoryMiB: 2048, Network: "user", Warm: true,
			Forwards:  []Forward{{HostIP: "127.0.0.1", GuestPort: 22, Protocol: "tcp"}},
			SSH:       SSH{Port: 22},
			Bootstrap: Bootstrap{Mode: "auto", HandshakeTimeout: 2 * time.Minute, RemoteDir: "/tmp/castra-bootstrap", Env: map[string]string{}},
		}},
	}
	p, err := Synthesize(dir, "")
	require.NoError(t, err)
	require.Equal(t, want, p)
	require.Contains(t, string(p.Snapshot()), "Castra made it up")
	requireSnapshot(t, p)

	for given, path := range map[string]string{"/srv/disk.qcow2": "/srv/disk.qcow2", "../disk.qcow2": filepath.Join(filepath.Dir(dir), "disk.qcow2")} {
		p, err = Synthesize(dir, given)
		require.NoError(t, err)
		want.VMs[0].Image, want.VMs[0].BaseImage = "", path
		require.Equal(t, want, p)
		requireSnapshot(t, p)
	}

	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	p, err = Synthesize(link, "")
	require.NoError(t, err)
	require.Equal(t, dir, p.Dir)

	script := filepath.Join(dir, "bootstrap/vm/run.sh")
	require.NoError(t, os.MkdirAll(filepath.Dir(script), 0o755))
	require.NoError(t, os.WriteFile(script, []byte("true\n"), 0o644))
	p, err = Synthesize(dir, "")
	require.NoError(t, err)
	require.Equal(t, script, p.VMs[0].Bootstrap.Script)
	require.NoError(t, os.WriteFile(script, nil, 0o644))
	_, err = Synthesize(dir, "")
	var all Faults
	require.ErrorAs(t, err, &all)
	require.Equal(t, filepath.Join(dir, FileName)+": vms[0].bootstrap.script: "+script+" is empty", err.Error())

	_, err = Synthesize(filepath.Join(dir, "none"), "")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestSyntheticNames: whatever a directory is called, castra.toml could say it.
func TestSyntheticNames(t *testing.T) {
	for base, want := range map[string]string{
		"shop": "shop", "/": "project", "  a ": "a", " ": "project", "a\nb": "a-b", `a\b`: "a-b", "\x1b[m": "-[m", "größe": "größe", "\u202ea": "-a",
		"\xff": "\uFFFD", strings.Repeat("é", 100): strings.Repeat("é", 64), strings.Repeat("x", 63) + " y": strings.Repeat("x", 63),
	} {
		require.Equal(t, want, validName(base), "%q", base)
		require.Empty(t, refused(t, "version = \"0.2\"\nproject.name = "+quote(validName(base))+"\n"+web), "%q", base)
	}
}
