package warm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// used makes a template of owner that was last used so long ago.
func used(t *testing.T, s *Store, owner string, ago time.Duration) Info {
	t.Helper()
	info := makeIt(t, s, owned(owner), fillRAM)
	at := time.Now().Add(-ago)
	require.NoError(t, os.Chtimes(s.path(info.Key, manifestName), at, at))
	return info
}

func owners(infos []Info) (names []string) {
	for _, i := range infos {
		names = append(names, i.Owner)
	}
	return names
}

func TestEvict(t *testing.T) {
	s := open(t)
	size := used(t, s, "newest", time.Minute).Bytes
	used(t, s, "oldest", 3*time.Hour)
	used(t, s, "middle", 2*time.Hour)
	used(t, s, "held", 4*time.Hour)
	held, err := s.Find(t.Context(), owned("held"))
	require.NoError(t, err)
	defer held.Release()
	old := time.Now().Add(-4 * time.Hour)
	require.NoError(t, os.Chtimes(s.path(held.Key, manifestName), old, old))

	gone, err := s.Evict(4 * size)
	require.NoError(t, err)
	require.Empty(t, gone, "just enough room")
	gone, err = s.Evict(4*size - 1)
	require.NoError(t, err)
	require.Equal(t, []string{"oldest"}, owners(gone))
	require.Equal(t, size, gone[0].Bytes)
	gone, err = s.Evict(0)
	require.NoError(t, err)
	require.Equal(t, []string{"middle"}, owners(gone), "not the one that is held, and not the newest")
	held.Release()
	gone, err = s.Evict(-1)
	require.NoError(t, err)
	require.Equal(t, []string{"held"}, owners(gone))
	requireNames(t, s, owned("newest").Key())
}

// What Find gives is used now, so it goes last.
func TestEvictAfterFind(t *testing.T) {
	s := open(t)
	used(t, s, "a", 3*time.Hour)
	used(t, s, "b", 2*time.Hour)
	found, err := s.Find(t.Context(), owned("a"))
	require.NoError(t, err)
	found.Release()
	gone, err := s.Evict(0)
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, owners(gone))
}

// The clock went back: a template of the future is found, and does not push
// out the one that was just made.
func TestClockWentBack(t *testing.T) {
	s := open(t)
	used(t, s, "future", -1000*time.Hour)
	used(t, s, "now", 0)
	path := s.path(owned("future").Key(), manifestName)
	var m Manifest
	require.NoError(t, readJSON(path, &m))
	m.Made = time.Now().Add(1000 * time.Hour)
	require.NoError(t, writeJSON(path, m))
	later := time.Now().Add(1000 * time.Hour)
	require.NoError(t, os.Chtimes(path, later, later))
	found, err := s.Peek(t.Context(), owned("future"))
	require.NoError(t, err)
	found.Release()
	gone, err := s.Evict(0)
	require.NoError(t, err)
	require.Equal(t, []string{"future"}, owners(gone))
}

func TestRemove(t *testing.T) {
	s := open(t)
	a, b := used(t, s, "a", 0), used(t, s, "b", 0)
	held, err := s.Find(t.Context(), owned("a"))
	require.NoError(t, err)
	removed, kept, err := s.Remove(a.Key, b.Key, owned("none").Key())
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, owners(removed))
	require.Equal(t, []string{"a"}, owners(kept))
	require.True(t, kept[0].InUse)
	require.FileExists(t, held.Disk())
	held.Release()
	removed, kept, err = s.Remove(a.Key)
	require.NoError(t, err)
	require.Len(t, removed, 1)
	require.Empty(t, kept)
	requireNames(t, s)
}

func TestSetAside(t *testing.T) {
	s := open(t)
	for _, why := range []string{"first", "second", "third"} {
		makeIt(t, s, some(), fillDisk)
		held, err := s.Find(t.Context(), some())
		require.NoError(t, err)
		require.NoError(t, s.SetAside(some().Key(), why), "also by one who has found it")
		held.Release()
		require.NoError(t, s.SetAside(some().Key(), why), "one that is gone is no error")
		_, err = s.Find(t.Context(), some())
		require.ErrorAs(t, err, new(*MissError))
	}
	left, err := s.Leftovers()
	require.NoError(t, err)
	require.Len(t, left, 2)
	var whys []string
	for _, l := range left {
		b, err := os.ReadFile(s.path(l.Key, whyName))
		require.NoError(t, err)
		whys = append(whys, strings.TrimSpace(string(b)))
		require.Equal(t, "web", l.Owner)
	}
	require.Equal(t, []string{"second", "third"}, whys)

	makeIt(t, s, some(), fillDisk)
	gone, err := s.Evict(0)
	require.NoError(t, err)
	require.Len(t, gone, 2, "they go before any template")
	requireNames(t, s, some().Key())
	require.NoError(t, s.SetAside(some().Key(), "fourth"))
	left, err = s.Leftovers()
	require.NoError(t, err)
	removed, _, err := s.Remove(left[0].Key)
	require.NoError(t, err)
	require.Len(t, removed, 1)
	requireNames(t, s)
}

// What is not the store's own is left by everything.
func TestHostile(t *testing.T) {
	s := open(t)
	makeIt(t, s, some(), fillDisk)
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.Mkdir(outside, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "thesis.txt"), []byte("mine"), 0o600))
	key := func(c string) string { return strings.Repeat(c, 32) }
	for _, link := range []string{key("0"), ".new-0000000000000000", ".gone-0000000000000000", ".bad-" + key("0") + "-1"} {
		require.NoError(t, os.Symlink(outside, s.path(link)))
	}
	for _, file := range []string{key("1"), "keys.txt", ".new-0000000000000001"} {
		require.NoError(t, os.WriteFile(s.path(file), nil, 0o600))
	}
	for _, dir := range []string{key("2"), "mine", key("A"), key("3") + "4", ".new-mine", ".bad-" + key("4") + "-1"} {
		require.NoError(t, os.Mkdir(s.path(dir), 0o700))
		require.NoError(t, os.WriteFile(s.path(dir, "thesis.txt"), []byte("mine"), 0o600))
	}
	before := tree(t, s)

	all, err := s.All()
	require.NoError(t, err)
	require.Equal(t, []string{some().Key()}, []string{all[0].Key})
	left, err := s.Leftovers()
	require.NoError(t, err)
	require.Empty(t, left)
	gone, err := s.Evict(0)
	require.NoError(t, err)
	require.Empty(t, gone)
	require.NoError(t, s.Sweep())
	for _, name := range append(before, "../x", "../outside", ".", "", "/", some().Key()+"/..", "digests", "mine/") {
		if name == some().Key() {
			continue
		}
		_, _, err := s.Remove(name)
		require.Error(t, err, name)
		require.Error(t, s.SetAside(name, "why"), name)
	}
	makeIt(t, s, owned("db"), fillDisk)
	removed, _, err := s.Remove(owned("db").Key())
	require.NoError(t, err)
	require.Len(t, removed, 1)
	require.Equal(t, before, tree(t, s))
	require.FileExists(t, filepath.Join(outside, "thesis.txt"))

	// A symlink inside a template goes, and what it points at stays.
	makeIt(t, s, owned("db"), fillDisk)
	require.NoError(t, os.Symlink(outside, s.path(owned("db").Key(), RAMName)))
	_, _, err = s.Remove(owned("db").Key())
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(outside, "thesis.txt"))
}

func tree(t *testing.T, s *Store) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		if path != s.dir {
			names = append(names, strings.TrimPrefix(path, s.dir+"/"))
		}
		return err
	}))
	slices.Sort(names)
	return names
}

// A damaged template still takes room, is listed, and can go.
func TestDamagedAreRemoved(t *testing.T) {
	s := open(t)
	for _, file := range []string{manifestName, DiskName, seenName} {
		info := makeIt(t, s, some(), fillRAM)
		require.NoError(t, os.Remove(s.path(info.Key, file)))
		all, err := s.All()
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.False(t, all[0].InUse)
		removed, _, err := s.Remove(info.Key)
		require.NoError(t, err)
		require.Len(t, removed, 1)
	}
}

// A removal that is cut short leaves what Sweep takes away.
func TestRemovalKilled(t *testing.T) {
	s := open(t)
	info := makeIt(t, s, some(), fillRAM)
	gone := s.path(".gone-0123456789abcdef")
	require.NoError(t, os.Rename(s.path(info.Key), gone))
	require.NoError(t, os.Remove(filepath.Join(gone, manifestName)))
	left, err := s.Leftovers()
	require.NoError(t, err)
	require.Len(t, left, 1)
	_, err = s.Find(t.Context(), some())
	require.ErrorAs(t, err, new(*MissError))
	require.NoError(t, s.Sweep())
	requireNames(t, s)
}

func TestErrorHint(t *testing.T) {
	require.Equal(t, "chmod 700 /x", (&Error{"make", "/x", errors.Join(&UnsafeError{"/x", "open", "chmod 700 /x"})}).Hint())
	require.Contains(t, (&Error{"make", "/x", fs.ErrPermission}).Hint(), "write there")
}
