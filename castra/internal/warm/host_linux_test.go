package warm

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A QEMU that was restored from a template has its disk open, long after the
// command that started it has let go.
func TestInUseByQEMU(t *testing.T) {
	s := open(t)
	info := used(t, s, "a", time.Hour)
	used(t, s, "b", 0)
	disk, err := os.Open(s.path(info.Key, DiskName))
	require.NoError(t, err)
	defer disk.Close()
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: 100, Len: 1} // as QEMU says that it reads
	require.NoError(t, unix.FcntlFlock(disk.Fd(), unix.F_OFD_SETLK, &lock))

	gone, err := s.Evict(0)
	require.NoError(t, err)
	require.Empty(t, gone)
	removed, kept, err := s.Remove(info.Key)
	require.NoError(t, err)
	require.Empty(t, removed)
	require.True(t, kept[0].InUse)
	disk.Close()
	gone, err = s.Evict(0)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, owners(gone))
}

// A store that cannot be written to gives its templates.
func TestReadOnly(t *testing.T) {
	s := open(t)
	key := makeIt(t, s, some(), fillRAM).Key
	require.NoError(t, os.Remove(s.path(key, seenName)))
	for _, dir := range []string{s.dir, s.path(key)} {
		require.NoError(t, os.Chmod(dir, 0o500))
		defer os.Chmod(dir, 0o700)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread, without root's powers, ends here
		if !dropPowers(t) {
			return
		}
		found, err := s.Find(t.Context(), some())
		if err != nil {
			t.Error(err)
			return
		}
		found.Release()
		if _, err := s.Make(t.Context(), owned("db"), Meta{}, fillDisk); err == nil {
			t.Error("made one in a directory that is read-only")
		}
		if _, _, err := s.Remove(key); err == nil {
			t.Error("removed one from a directory that is read-only")
		}
		if err := s.SaveFacts("ab", 1); err == nil {
			t.Error("saved facts in a directory that is read-only")
		}
		if _, err := s.Digest(t.Context(), s.path(key, DiskName)); err != nil {
			t.Error(err)
		}
	}()
	<-done
	require.NoFileExists(t, s.path(key, seenName))
}

// dropPowers makes permissions count on this thread, also for root.
func dropPowers(t *testing.T) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Errorf("capset: %v", err)
		return false
	}
	return true
}
