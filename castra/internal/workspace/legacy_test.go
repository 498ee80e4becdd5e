package workspace

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRemoveLegacy(t *testing.T) {
	w := create(t)
	kept := []string{"handshakes/h", "logs/web-0.log", "logs/business/f", "web-0.pid"}
	for _, name := range append([]string{"logs/bus/a/b", "broker.pid"}, kept...) {
		require.NoError(t, os.MkdirAll(filepath.Dir(w.join(name)), 0o700))
		require.NoError(t, os.WriteFile(w.join(name), make([]byte, 5000), 0o600))
	}
	vms, err := w.PidfileVMs()
	require.NoError(t, err)
	require.Equal(t, []string{"web-0"}, vms)

	items, err := w.RemoveLegacy()
	require.NoError(t, err)
	require.Len(t, items, 2)
	for i, name := range []string{"logs/bus", "broker.pid"} {
		require.Equal(t, name, items[i].Path)
		require.Equal(t, "legacy", items[i].Kind)
		require.GreaterOrEqual(t, items[i].Bytes, int64(5000))
		require.NoFileExists(t, w.join(name))
		require.NoDirExists(t, w.join(name))
	}
	for _, name := range kept {
		require.FileExists(t, w.join(name))
	}
	items, err = w.RemoveLegacy()
	require.NoError(t, err)
	require.Empty(t, items)
}

// What is not a plain file or directory is nobody's legacy, and is not followed.
func TestRemoveLegacyFollowsNothing(t *testing.T) {
	outside := t.TempDir()
	canary := filepath.Join(outside, "bus", "f")
	require.NoError(t, os.MkdirAll(filepath.Dir(canary), 0o700))
	require.NoError(t, os.WriteFile(canary, nil, 0o600))
	for name, prepare := range map[string]func(w *Workspace) error{
		"bus is a symlink":        func(w *Workspace) error { return os.Symlink(filepath.Dir(canary), w.join("logs/bus")) },
		"bus is a file":           func(w *Workspace) error { return os.WriteFile(w.join("logs/bus"), nil, 0o600) },
		"broker.pid is a symlink": func(w *Workspace) error { return os.Symlink(canary, w.join("broker.pid")) },
		"broker.pid is a FIFO":    func(w *Workspace) error { return unix.Mkfifo(w.join("broker.pid"), 0o600) },
		"broker.pid is a directory": func(w *Workspace) error {
			return os.Mkdir(w.join("broker.pid"), 0o700)
		},
		"logs is a symlink": func(w *Workspace) error {
			if err := os.Remove(w.Logs()); err != nil {
				return err
			}
			return os.Symlink(outside, w.Logs())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := create(t)
			require.NoError(t, prepare(w))
			before := tree(t, w.Root)
			items, err := w.RemoveLegacy()
			require.NoError(t, err)
			require.Empty(t, items)
			require.Equal(t, before, tree(t, w.Root))
			require.FileExists(t, canary)
		})
	}
}

// A VM may be called broker where VMs have no number behind their name.
func TestVMCalledBroker(t *testing.T) {
	w := create(t)
	require.NoError(t, os.WriteFile(w.Pidfile("broker"), nil, 0o600))
	s, err := w.LoadSession()
	require.NoError(t, err)
	s.VMs["broker"] = VM{Name: "broker"}
	require.NoError(t, w.SaveSession(s))
	left := func() {
		items, err := w.RemoveLegacy()
		require.NoError(t, err)
		require.Empty(t, items)
		require.FileExists(t, w.Pidfile("broker"))
	}
	left()
	require.NoError(t, os.WriteFile(w.Session(), nil, 0o600))
	left() // nothing is known of what runs

	require.NoError(t, os.Remove(w.Session()))
	holdLock(t, w.Pidfile("broker"))
	left()
	vms, err := w.PidfileVMs()
	require.NoError(t, err)
	require.Equal(t, []string{"broker"}, vms)
}

// holdLock has another process lock the file as QEMU does, until the test ends.
func holdLock(t *testing.T, file string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHoldLock$")
	cmd.Env = append(os.Environ(), "CASTRA_TEST_LOCK="+file)
	stop, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stop.Close()
		cmd.Wait()
	})
	_, err = out.Read(make([]byte, 1))
	require.NoError(t, err, "it says when it holds the lock")
}

// TestHoldLock is the other process.
func TestHoldLock(t *testing.T) {
	file := os.Getenv("CASTRA_TEST_LOCK")
	if file == "" {
		t.Skip("only as a child of another test")
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	os.Stdout.WriteString("held")
	os.Stdin.Read(make([]byte, 1))
	f.Close()
}
