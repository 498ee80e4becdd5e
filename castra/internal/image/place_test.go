package image

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fixture has an image in a store and a place to put it.
type fixture struct {
	home, place, sidecar string
	o                    *origin
	body                 []byte
	source               Source
	disk                 Disk
}

func newFixture(t *testing.T, dir string) *fixture {
	f := &fixture{home: newHome(t), o: newOrigin(t), body: diskBytes(1, 300_000)}
	f.source = f.o.put("disk.img", f.body)
	f.place, f.sidecar = filepath.Join(dir, "alpine-minimal.qcow2"), filepath.Join(dir, "alpine-minimal.sha512")
	f.disk = f.ensure(t, f.source)
	return f
}

func (f *fixture) ensure(t *testing.T, s Source) Disk {
	d, err := Ensure(t.Context(), f.home, s, Report{})
	require.NoError(t, err)
	return d
}

// newer is another image in the same store.
func (f *fixture) newer(t *testing.T) (Disk, []byte) {
	body := diskBytes(2, 300_000)
	return f.ensure(t, f.o.put("newer.img", body)), body
}

func (f *fixture) requirePlaced(t *testing.T, body []byte) {
	got, err := os.ReadFile(f.place)
	require.NoError(t, err)
	require.True(t, bytes.Equal(body, got))
	side, err := os.ReadFile(f.sidecar)
	require.NoError(t, err)
	require.Equal(t, sumOf(body).Hex+"  alpine-minimal.qcow2\n", string(side))
	require.Equal(t, []string{".alpine-minimal.qcow2.castra.json", "alpine-minimal.qcow2", "alpine-minimal.sha512"}, names(t, filepath.Dir(f.place)))
}

func stat(t *testing.T, path string) unix.Stat_t {
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(path, &st))
	st.Atim = unix.Timespec{} // reading changes it
	return st
}

// otherFS is a directory on another file system than the store's.
func otherFS(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "castra-test-")
	if err != nil {
		t.Skip("no /dev/shm")
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if stat(t, dir).Dev == stat(t, t.TempDir()).Dev {
		t.Skip("/dev/shm is not another file system")
	}
	return dir
}

func TestPlaceLinks(t *testing.T) {
	f := newFixture(t, t.TempDir())
	settle()
	f.ensure(t, f.source)
	require.NoError(t, Place(t.Context(), f.disk, f.place))
	f.requirePlaced(t, f.body)
	require.Equal(t, stat(t, f.disk.Path).Ino, stat(t, f.place).Ino)
	require.Zero(t, f.ensure(t, f.source).Hashed, "one more name is no change")

	before := stat(t, f.place)
	require.NoError(t, Place(t.Context(), f.disk, f.place))
	require.Equal(t, before, stat(t, f.place))

	// 8 VMs of one image at once.
	done := make(chan error)
	dir := t.TempDir()
	for range 8 {
		go func() { done <- Place(t.Context(), f.disk, filepath.Join(dir, "alpine-minimal.qcow2")) }()
	}
	for range 8 {
		require.NoError(t, <-done)
	}
	f.place, f.sidecar = filepath.Join(dir, "alpine-minimal.qcow2"), filepath.Join(dir, "alpine-minimal.sha512")
	f.requirePlaced(t, f.body)
}

// Failure bank 26: across file systems.
func TestPlaceCopies(t *testing.T) {
	f := newFixture(t, otherFS(t))
	require.NoError(t, Place(t.Context(), f.disk, f.place))
	f.requirePlaced(t, f.body)
	made := stat(t, f.place)
	require.EqualValues(t, 1, made.Nlink)
	require.EqualValues(t, readOnly, made.Mode&0o777)
	require.NoError(t, Place(t.Context(), f.disk, f.place))
	require.Equal(t, made.Ino, stat(t, f.place).Ino, "it is left where it is right")

	for name, change := range map[string]func(){
		"touched": func() { require.NoError(t, os.Chtimes(f.place, time.Time{}, time.Now().Add(-time.Hour))) },
		"no record": func() {
			require.NoError(t, os.Remove(filepath.Join(filepath.Dir(f.place), ".alpine-minimal.qcow2.castra.json")))
		},
		"broken record": func() {
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(f.place), ".alpine-minimal.qcow2.castra.json"), []byte("{"), 0o600))
		},
		"left behind": func() {
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(f.place), besideName("alpine-minimal.qcow2")), nil, 0o600))
		},
	} {
		change()
		require.NoError(t, Place(t.Context(), f.disk, f.place), name)
		require.Equal(t, made.Ino, stat(t, f.place).Ino, name)
	}
	require.NoError(t, os.Remove(f.place))
	require.NoError(t, Place(t.Context(), f.disk, f.place))
	f.requirePlaced(t, f.body)

	newer, body := f.newer(t)
	require.NoError(t, Place(t.Context(), newer, f.place))
	f.requirePlaced(t, body)
	corrupt(t, f.place, 1000)
	require.ErrorAs(t, Place(t.Context(), f.disk, f.place), new(*ExistsError), "somebody may want what was changed in it")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Place(ctx, f.disk, filepath.Join(filepath.Dir(f.place), "other.qcow2")), context.Canceled)
	require.NotContains(t, strings.Join(names(t, filepath.Dir(f.place)), " "), "other")
}

// Holes stay holes in a copy.
func TestPlaceCopiesSparse(t *testing.T) {
	dir, o, home := otherFS(t), newOrigin(t), newHome(t)
	body := append(diskBytes(1, 100_000), make([]byte, 8<<20)...)
	d, err := Ensure(t.Context(), home, o.put("disk.img", pack(t, "zst", append(body, diskBytes(2, 100_000)...))), Report{})
	require.NoError(t, err)
	require.NoError(t, Place(t.Context(), d, filepath.Join(dir, "a.qcow2")))
	got, err := os.ReadFile(filepath.Join(dir, "a.qcow2"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(body, diskBytes(2, 100_000)...), got))
	require.Less(t, stat(t, filepath.Join(dir, "a.qcow2")).Blocks*512, int64(1<<20))
}

// Failure banks 29 and 33: an older image that was ours makes way; who has it
// open has it still.
func TestPlaceReplacesItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		then func(t *testing.T, f *fixture, record string)
		ok   bool
	}{
		"both in the store":    {func(*testing.T, *fixture, string) {}, true},
		"the older one pruned": {func(t *testing.T, f *fixture, _ string) { prune(t, f.home, f.disk) }, true},
		"the record lost":      {func(t *testing.T, _ *fixture, record string) { require.NoError(t, os.Remove(record)) }, true},
		"both": {func(t *testing.T, f *fixture, record string) {
			prune(t, f.home, f.disk)
			require.NoError(t, os.Remove(record))
		}, false},
		"pruned, another file there": {func(t *testing.T, f *fixture, _ string) { prune(t, f.home, f.disk); mine(t, f.place) }, false},
		"a record that is a symlink": {func(t *testing.T, f *fixture, record string) {
			prune(t, f.home, f.disk)
			require.NoError(t, os.Rename(record, record+"x"))
			require.NoError(t, os.Symlink(record+"x", record))
		}, false},
		"a changed link, still ours": {func(t *testing.T, f *fixture, _ string) { corrupt(t, f.place, 5000); prune(t, f.home, f.disk) }, true},
		"a link the store lacks now": {func(t *testing.T, f *fixture, _ string) { corrupt(t, f.place, 5000); f.ensure(t, f.source) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, t.TempDir())
			require.NoError(t, Place(t.Context(), f.disk, f.place))
			newer, body := f.newer(t)
			c.then(t, f, filepath.Join(filepath.Dir(f.place), ".alpine-minimal.qcow2.castra.json"))
			open, err := os.Open(f.place)
			require.NoError(t, err)
			defer open.Close()
			was, err := os.ReadFile(f.place)
			require.NoError(t, err)
			err = Place(t.Context(), newer, f.place)
			if !c.ok {
				var exists *ExistsError
				require.ErrorAs(t, err, &exists)
				require.Equal(t, f.place, exists.Path)
				require.Contains(t, exists.Hint(), f.place)
				still, err := os.ReadFile(f.place)
				require.NoError(t, err)
				require.True(t, bytes.Equal(was, still), "it is left as it was")
				return
			}
			require.NoError(t, err)
			f.requirePlaced(t, body)
			still := make([]byte, len(was))
			_, err = open.ReadAt(still, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(was, still))
		})
	}
}

func prune(t *testing.T, home string, d Disk) {
	_, err := Remove(home, Stored{Name: filepath.Base(filepath.Dir(d.Path)), Path: filepath.Dir(d.Path)})
	require.NoError(t, err)
	require.NoFileExists(t, d.Path)
}

// mine puts a user's own file where something was.
func mine(t *testing.T, path string) {
	_ = os.Remove(path)
	require.NoError(t, os.WriteFile(path, []byte("my thesis"), 0o600))
}

func TestPlaceLeavesWhatIsForeign(t *testing.T) {
	f := newFixture(t, t.TempDir())
	other := filepath.Join(t.TempDir(), "other")
	mine(t, other)
	for name, put := range map[string]func(path string){
		"a file":            func(path string) { mine(t, path) },
		"of the same size":  func(path string) { require.NoError(t, os.WriteFile(path, diskBytes(9, len(f.body)), 0o600)) },
		"an empty file":     func(path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) },
		"a symlink":         func(path string) { require.NoError(t, os.Symlink(other, path)) },
		"a broken symlink":  func(path string) { require.NoError(t, os.Symlink("none", path)) },
		"a symlink to ours": func(path string) { require.NoError(t, os.Symlink(f.disk.Path, path)) },
		"a directory":       func(path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
		"a FIFO":            func(path string) { require.NoError(t, unix.Mkfifo(path, 0o600)) },
	} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		put(path)
		before := stat(t, path)
		err := Place(t.Context(), f.disk, path)
		var exists *ExistsError
		require.ErrorAs(t, err, &exists, name)
		require.NotEmpty(t, exists.Hint())
		require.Equal(t, before.Ino, stat(t, path).Ino, name)
		require.Equal(t, []string{"disk.qcow2"}, names(t, filepath.Dir(path)), name)
	}
	// The same contents are taken as they are.
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	require.NoError(t, os.WriteFile(path, f.body, 0o600))
	before := stat(t, path)
	require.NoError(t, Place(t.Context(), f.disk, path))
	require.Equal(t, before, stat(t, path))

	for _, d := range []Disk{{}, {Path: other}, {Path: filepath.Join(f.home, "images", "x", "disk.qcow2")}, {Path: "images/" + filepath.Base(filepath.Dir(f.disk.Path)) + "/disk.qcow2"}} {
		require.Error(t, Place(t.Context(), d, filepath.Join(t.TempDir(), "disk.qcow2")))
	}
	require.ErrorIs(t, Place(t.Context(), f.disk, filepath.Join(t.TempDir(), "no", "such", "disk.qcow2")), os.ErrNotExist)
}

// Failure bank 21: a sidecar in any spelling says the same; a wrong or
// unreadable one does not stay beside the image.
func TestPlaceSidecars(t *testing.T) {
	f := newFixture(t, t.TempDir())
	hex := f.source.Digest.Hex
	older := strings.Repeat("ab", 64)
	for name, c := range map[string]struct {
		text string
		kept bool
	}{
		"upper case": {strings.ToUpper(hex), true}, "newline": {hex + "\n", true}, "CRLF": {hex + "\r\n", true}, "prefix": {"sha512:" + hex, true},
		"coreutils": {hex + "  disk.img\n", true}, "binary": {hex + " *disk.img\n", true}, "BSD": {"SHA512 (disk.img) = " + hex, true}, "BOM": {"\xef\xbb\xbf" + hex, true},
		"empty": {"", false}, "garbage": {"garbage\n", false}, "short": {hex[:100], false}, "zeros": {strings.Repeat("0", 128), false}, "an older one": {older + "  alpine-minimal.qcow2\n", false},
		"not hex": {"x" + hex[1:], false},
	} {
		require.NoError(t, os.WriteFile(f.sidecar, []byte(c.text), 0o600))
		require.NoError(t, Place(t.Context(), f.disk, f.place), name)
		got, err := os.ReadFile(f.sidecar)
		require.NoError(t, err)
		if c.kept {
			require.Equal(t, c.text, string(got), name)
		} else {
			f.requirePlaced(t, f.body)
		}
	}
	require.NoError(t, os.Remove(f.sidecar))
	require.NoError(t, Place(t.Context(), f.disk, f.place))
	f.requirePlaced(t, f.body)
	other := filepath.Join(t.TempDir(), "other")
	mine(t, other)
	require.NoError(t, os.Remove(f.sidecar))
	require.NoError(t, os.Symlink(other, f.sidecar))
	require.ErrorAs(t, Place(t.Context(), f.disk, f.place), new(*ExistsError))
	data, err := os.ReadFile(other)
	require.NoError(t, err)
	require.Equal(t, "my thesis", string(data))

	// Where only a SHA-256 is known there is none.
	s := f.o.put("disk.img", f.body)
	s.Digest = sum256Of(f.body)
	dir := t.TempDir()
	require.NoError(t, Place(t.Context(), f.ensure(t, s), filepath.Join(dir, "a.qcow2")))
	require.Equal(t, []string{".a.qcow2.castra.json", "a.qcow2"}, names(t, dir))
}
