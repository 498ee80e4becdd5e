package image

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
)

// guests fills home with what builds leave, and with what is the user's own.
func guests(t *testing.T) (home string, in func(string) string) {
	t.Helper()
	home = t.TempDir()
	in = func(name string) string { return filepath.Join(home, "guests", name) }
	current, ok, err := Lookup(home, Small, runtime.GOARCH)
	require.NoError(t, err)
	require.False(t, ok)
	dir := filepath.Dir(current.Path)
	for _, file := range []string{
		filepath.Join(dir, "disk.qcow2"), in("small-000000000000/disk.qcow2"), in("small-000000000000/vmlinux"), in("small-build-42/pkgs/x"), in("small-build-42/disk.raw"),
		in("packages/x.deb"), in("small.lock"), in("small-mine/disk.qcow2"), in("small-000000000001/disk.qcow2"), in("small-000000000001/notes.txt"), in("small-build-mine/f"),
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, make([]byte, 10_000), 0o444))
	}
	manifest := `{"outputs": [{"name": "disk.qcow2", "bytes": 10000}]}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(manifest), 0o444))
	require.NoError(t, os.Symlink(in("small-000000000000"), in("small-000000000002")))
	require.NoError(t, os.WriteFile(in("small-000000000003"), nil, 0o600))
	return home, in
}

func TestAllAndRemove(t *testing.T) {
	home, in := guests(t)
	current, ok, err := Lookup(home, Small, runtime.GOARCH)
	require.NoError(t, err)
	require.True(t, ok)

	all, err := All(home)
	require.NoError(t, err)
	byName := map[string]Stored{}
	for _, s := range all {
		require.GreaterOrEqual(t, s.Bytes, int64(10_000))
		s.Bytes = 0
		byName[s.Name] = s
	}
	name := filepath.Base(filepath.Dir(current.Path))
	require.Equal(t, map[string]Stored{
		name:                 {Name: name, Path: in(name), Disk: current.Path, Current: true},
		"small-000000000000": {Name: "small-000000000000", Path: in("small-000000000000"), Disk: in("small-000000000000/disk.qcow2")},
		"small-build-42":     {Name: "small-build-42", Path: in("small-build-42")},
	}, byName)

	for _, s := range all {
		freed, err := Remove(home, s)
		require.NoError(t, err)
		require.Equal(t, s.Bytes, freed)
		require.NoDirExists(t, s.Path)
		freed, err = Remove(home, s)
		require.NoError(t, err, "what is gone is no error")
		require.Zero(t, freed)
	}
	for _, kept := range []string{"packages/x.deb", "small.lock", "small-mine/disk.qcow2", "small-000000000001/notes.txt", "small-build-mine/f", "small-000000000003"} {
		require.FileExists(t, in(kept))
	}
	all, err = All(home)
	require.NoError(t, err)
	require.Empty(t, all)
}

// Failure bank 93: a name is looked at again when it is removed.
func TestRemoveRefuses(t *testing.T) {
	home, in := guests(t)
	for _, name := range []string{"packages", "small.lock", "small-mine", "small-000000000001", "small-000000000002", "small-000000000003", ".", "", "../guests", "small-000000000000/.."} {
		_, err := Remove(home, Stored{Name: name, Path: in(name)})
		require.Error(t, err, name)
	}
	outside := filepath.Join(home, "small-build-7")
	require.NoError(t, os.Mkdir(outside, 0o700))
	_, err := Remove(home, Stored{Name: "../small-build-7", Path: outside})
	require.Error(t, err)
	require.DirExists(t, outside)
	require.FileExists(t, in("small-000000000000/disk.qcow2"))
}

func TestRemoveDuringABuild(t *testing.T) {
	home, in := guests(t)
	build := flock.New(in("small.lock"))
	require.NoError(t, build.Lock())
	s := Stored{Name: "small-build-42", Path: in("small-build-42")}
	_, err := Remove(home, s)
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	require.NotEmpty(t, busy.Hint())
	require.FileExists(t, in("small-build-42/disk.raw"))
	require.NoError(t, build.Unlock())
	_, err = Remove(home, s)
	require.NoError(t, err)
}

func TestAllWhereNothingIs(t *testing.T) {
	for _, home := range []string{"", t.TempDir()} {
		all, err := All(home)
		require.NoError(t, err)
		require.Empty(t, all)
		freed, err := Remove(home, Stored{Name: "small-000000000000", Path: "/no/such"})
		require.NoError(t, err)
		require.Zero(t, freed)
	}
}

func TestDownloadedImagesAreStored(t *testing.T) {
	o, home := newOrigin(t), newHome(t)
	body := diskBytes(1, 100_000)
	s := o.put("disk.img", body)
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	images := filepath.Join(home, "images")
	in := func(names ...string) string { return filepath.Join(append([]string{images}, names...)...) }
	key := func(c string) string { return "sha512-" + strings.Repeat(c, 32) }
	for _, file := range []string{
		in(key("1"), "download.part"), in(key("1"), "download.part.json"), in(key("1"), "lock"), in(key("2"), "unpack.part"),
		in(key("3"), "disk.qcow2"), in(key("3"), "notes.txt"), in("mine", "disk.qcow2"), in(".gone-0123456789abcdef", "disk.qcow2"), in("sha512-abc", "disk.raw"),
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, make([]byte, 10_000), 0o600))
	}
	require.NoError(t, os.Symlink(in(key("1")), in(key("4"))))
	require.NoError(t, os.WriteFile(in(key("5")), nil, 0o600))

	all, err := All(home)
	require.NoError(t, err)
	own := filepath.Base(filepath.Dir(d.Path))
	byName := map[string]Stored{}
	for _, s := range all {
		require.GreaterOrEqual(t, s.Bytes, int64(10_000))
		s.Bytes = 0
		byName[s.Name] = s
	}
	require.Equal(t, map[string]Stored{
		own:                      {Name: own, Path: in(own), Disk: d.Path},
		key("1"):                 {Name: key("1"), Path: in(key("1"))},
		key("2"):                 {Name: key("2"), Path: in(key("2"))},
		".gone-0123456789abcdef": {Name: ".gone-0123456789abcdef", Path: in(".gone-0123456789abcdef")},
	}, byName)

	place := filepath.Join(t.TempDir(), "a.qcow2")
	require.NoError(t, Place(t.Context(), d, place))
	for _, s := range all {
		freed, err := Remove(home, s)
		require.NoError(t, err)
		require.NoDirExists(t, s.Path)
		if s.Name == own {
			require.Less(t, freed, int64(len(body)), "a workspace has the disk still")
		} else {
			require.GreaterOrEqual(t, freed, int64(10_000))
		}
		freed, err = Remove(home, s)
		require.NoError(t, err, "what is gone is no error")
		require.Zero(t, freed)
	}
	for _, name := range []string{key("3"), key("4"), key("5"), "mine", "sha512-abc", "../images"} {
		_, err := Remove(home, Stored{Name: name, Path: in(name)})
		if keyName.MatchString(name) {
			require.Error(t, err, name)
		}
	}
	require.NoError(t, os.Remove(in(key("4"))))
	got, err := os.ReadFile(place)
	require.NoError(t, err)
	require.Equal(t, body, got)
	require.FileExists(t, in(key("3"), "notes.txt"))
	require.FileExists(t, in("mine", "disk.qcow2"))
	all, err = All(home)
	require.NoError(t, err)
	require.Empty(t, all)
	_, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
}

func TestRemoveDuringADownload(t *testing.T) {
	o, home := newOrigin(t), newHome(t)
	d, err := Ensure(t.Context(), home, o.put("disk.img", diskBytes(1, 10_000)), Report{})
	require.NoError(t, err)
	dir := filepath.Dir(d.Path)
	l := flock.New(filepath.Join(dir, lockName))
	require.NoError(t, l.Lock())
	_, err = Remove(home, Stored{Name: filepath.Base(dir), Path: dir})
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	require.NotEmpty(t, busy.Hint())
	require.ErrorContains(t, err, "is being fetched")
	require.FileExists(t, d.Path)
	require.NoError(t, l.Unlock())
	_, err = Remove(home, Stored{Name: filepath.Base(dir), Path: dir})
	require.NoError(t, err)
	require.NoDirExists(t, dir)
}

// The catalogue's own images are told from others.
func TestCurrentImages(t *testing.T) {
	home := newHome(t)
	key, err := catalogue[0].From("").key()
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(home, "images", key), 0o700))
	require.NoError(t, os.Chmod(filepath.Join(home, "images"), 0o700))
	all, err := All(home)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.True(t, all[0].Current)
}
