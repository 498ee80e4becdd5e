package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Nothing is read from or written to a home that others can change, or that
// leads elsewhere.
func TestUnsafeHomes(t *testing.T) {
	o := newOrigin(t)
	s := o.put("disk.img", diskBytes(1, 4096))
	key, err := s.key()
	require.NoError(t, err)
	elsewhere := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "elsewhere")
		require.NoError(t, os.MkdirAll(dir, 0o700))
		return dir
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, home, images, slot string)
		says string
	}{
		"home group-writable":    {func(t *testing.T, home, _, _ string) { require.NoError(t, os.Chmod(home, 0o770)) }, "others may change it"},
		"home of another user":   {func(t *testing.T, home, _, _ string) { chown(t, home) }, "belongs to uid"},
		"home a file":            {func(t *testing.T, home, _, _ string) { require.NoError(t, os.RemoveAll(home)); mine(t, home) }, "not a directory"},
		"images world-writable":  {func(t *testing.T, _, images, _ string) { require.NoError(t, os.Chmod(images, 0o777)) }, "others may change it"},
		"images a symlink":       {func(t *testing.T, _, images, _ string) { swap(t, images, elsewhere(t)) }, "is a symlink"},
		"images of another user": {func(t *testing.T, _, images, _ string) { chown(t, images) }, "belongs to uid"},
		"images a file":          {func(t *testing.T, _, images, _ string) { require.NoError(t, os.RemoveAll(images)); mine(t, images) }, "is not a directory"},
		"slot a symlink":         {func(t *testing.T, _, _, slot string) { swap(t, slot, elsewhere(t)) }, "is a symlink"},
		"slot group-writable":    {func(t *testing.T, _, _, slot string) { require.NoError(t, os.Chmod(slot, 0o775)) }, "others may change it"},
		"slot of another user":   {func(t *testing.T, _, _, slot string) { chown(t, slot) }, "belongs to uid"},
		"lock a symlink": {func(t *testing.T, _, _, slot string) {
			swap(t, filepath.Join(slot, lockName), filepath.Join(elsewhere(t), "new"))
		}, "is a symlink"},
		"disk a symlink": {func(t *testing.T, _, _, slot string) {
			swap(t, filepath.Join(slot, "disk.raw"), filepath.Join(elsewhere(t), "new"))
		}, "is a symlink"},
		"disk a FIFO": {func(t *testing.T, _, _, slot string) {
			require.NoError(t, unix.Mkfifo(filepath.Join(slot, "disk.qcow2"), 0o600))
		}, "not a regular file"},
		"part a symlink": {func(t *testing.T, _, _, slot string) {
			swap(t, filepath.Join(slot, downloadName), filepath.Join(elsewhere(t), "new"))
		}, "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			home := newHome(t)
			images := filepath.Join(home, "images")
			require.NoError(t, os.MkdirAll(filepath.Join(images, key), 0o700))
			c.make(t, home, images, filepath.Join(images, key))
			_, err := Ensure(t.Context(), home, s, Report{})
			require.ErrorContains(t, err, c.says)
			_, ok := Find(home, s)
			require.False(t, ok)
			all, _ := allDownloaded(home)
			for _, s := range all {
				require.Empty(t, s.Disk)
			}
		})
	}
	gets, _ := o.counts()
	require.Zero(t, gets)
}

func chown(t *testing.T, path string) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	require.NoError(t, os.Chown(path, 12345, 12345))
}

func swap(t *testing.T, path, to string) {
	require.NoError(t, os.RemoveAll(path))
	require.NoError(t, os.Symlink(to, path))
}

// A home that is reached by a symlink of the user's own is fine, and facts that
// are none of ours are not believed.
func TestHomeBySymlink(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(1, 4096)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(home, link))
	s := o.put("disk.img", body)
	d, err := Ensure(t.Context(), link, s, Report{})
	require.NoError(t, err)
	requireDisk(t, body, d)
	facts := filepath.Join(filepath.Dir(d.Path), factsName)
	require.NoError(t, os.Rename(facts, filepath.Join(home, "facts")))
	require.NoError(t, os.Symlink(filepath.Join(home, "facts"), facts))
	_, ok := Find(link, s)
	require.False(t, ok)
	d, err = Ensure(t.Context(), link, s, Report{})
	require.NoError(t, err)
	require.Positive(t, d.Hashed)
	requireDisk(t, body, d)
}
