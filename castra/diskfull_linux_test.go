package castra

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/soak"
)

// A7: on a disk that is full, or gets full half way, up tells of it, the VM that ran before runs on, and all works again once
// there is room.
func TestDiskFullSoak(t *testing.T) {
	const step = 8 << 10
	n, failed := soak.N(5, 20), 0
	for i := range n {
		w := newWorld(t, patient, vm("web"), vm("db"))
		require.NoError(t, os.Mkdir(w.home, 0o700))
		if err := unix.Mount("tmpfs", w.home, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
			t.Skipf("mount: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(w.home, unix.MNT_DETACH) })
		o := w.options()
		o.Force = true // it is known that there is too little room
		require.NoError(t, w.openWith(o).Up(t.Context(), UpOptions{VMs: []string{"web"}}))
		before := w.status("web-0").PID
		filler := filepath.Join(w.home, "filler")
		free := i * (20 / n) * step
		fill(t, filler, w.home, free)

		err := w.openWith(o).Up(t.Context(), UpOptions{})
		states := w.tellsTruth()
		require.Equal(t, "web-0 running", states[0])
		require.Equal(t, before, w.status("web-0").PID)
		if err != nil {
			failed++
			require.Regexp(t, `no space left on device|QEMU ended`, err.Error(), "%d bytes free", free)
			require.Regexp(t, `up db-0|`+w.home, err.Error(), "it names the VM, or the file")
			require.Contains(t, exit(err).Error(), "\n  next: ")
			require.Len(t, w.running(), 1)
		}
		require.NoError(t, os.Remove(filler))
		require.NoError(t, w.openWith(o).Up(t.Context(), UpOptions{}))
		require.Equal(t, []string{"web-0 running", "db-0 running"}, w.states())
		require.Equal(t, before, w.status("web-0").PID)

		fill(t, filler, w.home, 0)
		require.NoError(t, w.open().Down(t.Context()), "down gives room, and needs none")
		require.NoError(t, os.Remove(filler))
		w.down()
		w.cleanSlate()
	}
	require.Positive(t, failed, "there was room each time")
	soak.AtLeast(t, "A7", "amounts of room on a full disk", 20, float64(n))
}

// fill leaves so many bytes free.
func fill(t *testing.T, path, dir string, free int) {
	t.Helper()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	require.NoError(t, os.WriteFile(path, make([]byte, max(int(st.Bavail)*int(st.Bsize)-free, 0)), 0o600))
}
