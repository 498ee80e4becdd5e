package host

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Failure bank 53: "localhost" may reach another program by IPv6.
func TestListensIPv6(t *testing.T) {
	for addr, want := range map[string]bool{"[::1]:0": true, "[::]:0": true, "127.0.0.1:0": false} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Logf("%s: %v", addr, err) // no IPv6 here
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		require.Equal(t, want, ListensIPv6(port), addr)
		l.Close()
		require.False(t, ListensIPv6(port), addr)
	}
}

func TestWorkingDirs(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	program := filepath.Join(dir, "castra-fact-of-a-long-name")
	require.NoError(t, os.Symlink(sleep, program))
	cmd := exec.Command(program, "60")
	cmd.Dir = filepath.Join(dir, "before")
	require.NoError(t, os.Mkdir(cmd.Dir, 0o700))
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()

	require.Equal(t, cmd.Dir, WorkingDirs("castra-fact-")[cmd.Process.Pid])
	now := filepath.Join(dir, "after")
	require.NoError(t, os.Rename(cmd.Dir, now))
	require.Equal(t, map[int]string{cmd.Process.Pid: now}, WorkingDirs("castra-fact-"), "the new name")
	require.NoError(t, os.Remove(now))
	require.Contains(t, WorkingDirs("castra-fact-")[cmd.Process.Pid], " (deleted)")
	require.NotContains(t, WorkingDirs("qemu-system-"), cmd.Process.Pid)
}

func TestMountPoints(t *testing.T) {
	require.Contains(t, MountPoints(), "/proc")
	require.Equal(t, []string{"/", "/mnt/a b\\c", "/x\\9"}, parseMounts(`22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 8:2 / /mnt/a\040b\134c rw shared:1 - ext4 /dev/sdb1 rw
short line
24 22 8:3 / /x\9 rw - tmpfs tmpfs rw
`))
}

func TestTreeUsage(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
	empty := TreeUsage(os.DirFS(dir), "a")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "b", "f"), make([]byte, 100_000), 0o600))
	sparse, err := os.Create(filepath.Join(dir, "a", "sparse"))
	require.NoError(t, err)
	require.NoError(t, sparse.Truncate(1<<30))
	require.NoError(t, sparse.Close())
	require.NoError(t, os.Symlink("/", filepath.Join(dir, "a", "link")))
	got := TreeUsage(os.DirFS(dir), "a") - empty
	require.GreaterOrEqual(t, got, int64(100_000))
	require.Less(t, got, int64(1<<20), "a sparse file counts what it takes, a symlink not what it leads to")
	require.Zero(t, TreeUsage(os.DirFS(dir), "none"))
}
