package qemu

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestHelperHoldLock is no test but a process: it takes QEMU's lock on the
// file it is given and keeps it until its input ends.
func TestHelperHoldLock(t *testing.T) {
	path := os.Getenv("HOLD_LOCK")
	if path == "" {
		t.Skip("only as a process of other tests")
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}))
	fmt.Println("locked")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// hold starts a process that holds the lock on path; release ends it.
func hold(t *testing.T, path string) (pid int, release func()) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperHoldLock$", "-test.v")
	cmd.Env = append(os.Environ(), "HOLD_LOCK="+path)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for s := bufio.NewScanner(out); s.Scan() && !strings.Contains(s.Text(), "locked"); {
	}
	done := false
	release = func() {
		if !done {
			done = true
			in.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(release)
	return cmd.Process.Pid, release
}

func TestHolderBelievesTheLockAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm.pid")
	pid, err := Holder(path)
	require.NoError(t, err)
	require.Zero(t, pid, "no file")

	// Failure bank 54-56: content decides nothing.
	for _, content := range []string{"", "\n", "0", "-1", "1", "abc", "99999999999999999999", fmt.Sprint(os.Getpid())} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		pid, err := Holder(path)
		require.NoError(t, err, content)
		require.Zero(t, pid, content)
	}

	want, release := hold(t, path)
	pid, err = Holder(path)
	require.NoError(t, err)
	require.Equal(t, want, pid)

	gone, err := removePidfile(t, path)
	require.NoError(t, err)
	require.False(t, gone, "a held pidfile stays")
	require.FileExists(t, path)

	moved := path + ".moved"
	require.NoError(t, os.Rename(path, moved))
	pid, err = Holder(moved)
	require.NoError(t, err)
	require.Equal(t, want, pid, "the lock follows a rename")

	release()
	pid, err = Holder(moved)
	require.NoError(t, err)
	require.Zero(t, pid)
	gone, err = removePidfile(t, moved)
	require.NoError(t, err)
	require.True(t, gone)
	require.NoFileExists(t, moved)
}

// B5: no odd file in place of a pidfile hangs, is followed, or is removed.
func TestHostilePidfiles(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("1"), 0o600))
	for name, make := range map[string]func(path string) error{
		"fifo":    func(p string) error { return unix.Mkfifo(p, 0o600) },
		"dir":     func(p string) error { return os.Mkdir(p, 0o700) },
		"symlink": func(p string) error { return os.Symlink(victim, p) },
		"dangles": func(p string) error { return os.Symlink(filepath.Join(dir, "none"), p) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name+".pid")
			require.NoError(t, make(path))
			pid, err := Holder(path)
			require.Error(t, err)
			require.Zero(t, pid)
			gone, err := removePidfile(t, path)
			require.Error(t, err)
			require.False(t, gone)
			_, err = os.Lstat(path)
			require.NoError(t, err, "it is left")
			require.FileExists(t, victim)
		})
	}
}

func removePidfile(t *testing.T, path string) (bool, error) {
	t.Helper()
	root, err := os.OpenRoot(filepath.Dir(path))
	require.NoError(t, err)
	defer root.Close()
	return RemovePidfile(root, filepath.Base(path))
}
