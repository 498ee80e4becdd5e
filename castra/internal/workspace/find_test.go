package workspace

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	home := t.TempDir()
	shop := madeAt(t, DefaultRoot(home, "shop-0123"), "shop-0123", "/src/shop")
	shop2 := madeAt(t, DefaultRoot(home, "shop-0123-4"), "shop-0123-4", "/src/shop2")
	web := madeAt(t, DefaultRoot(home, "web-aaaa"), "web-aaaa", "/src/web")
	far := elsewhere(t, home, "far-0")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(web.Root, link))

	for key, want := range map[string]string{
		"shop-0123": shop.Root, "shop-0123-4": shop2.Root, "web-": web.Root, "web-aaaa": web.Root, "far-0": far.Root, "far-": far.Root,
		web.Root: web.Root, web.Root + "/": web.Root, web.Root + "/logs/..": web.Root, far.Root: far.Root, link: link,
	} {
		w, err := Find(home, key)
		require.NoError(t, err, key)
		require.Equal(t, want, w.Root, key)
	}
	var ambiguous *AmbiguousWorkspaceError
	_, err := Find(home, "shop-0")
	require.ErrorAs(t, err, &ambiguous)
	require.Equal(t, []string{shop.Root, shop2.Root}, ambiguous.Roots)

	// Failure bank 9: a key is looked for and never joined to a path.
	for _, key := range []string{"", "web", "w", "none", "WEB-AAAA", "../projects/web-aaaa", "web-aaaa/", "*", "\x00", "/no/such", home} {
		_, err := Find(home, key)
		var unknown *UnknownWorkspaceError
		require.ErrorAs(t, err, &unknown, "%q", key)
		require.Equal(t, []string{"far-0", "shop-0123", "shop-0123-4", "web-aaaa"}, unknown.Known)
		require.Contains(t, unknown.Hint(), "mage status -all")
	}
	_, err = Find(t.TempDir(), "web")
	require.ErrorContains(t, err, "there is none on this computer")
}

func TestByConfigDir(t *testing.T) {
	home := t.TempDir()
	_, err := ByConfigDir(home, "/src/a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = ByConfigDir("", "/src/a")
	require.ErrorIs(t, err, fs.ErrNotExist)

	under := made(t, home, "old name", "/src/a")
	found, err := ByConfigDir(home, "/src/a")
	require.NoError(t, err)
	require.Equal(t, under, found)
	require.NoError(t, os.WriteFile(under.Record(), nil, 0o600))
	found, err = ByConfigDir(home, "/src/a")
	require.NoError(t, err, "without its record, by its ID")
	require.Equal(t, under, found)

	far := elsewhere(t, home, "far-0")
	found, err = ByConfigDir(home, "/src/far-0")
	require.NoError(t, err)
	require.Equal(t, far, found)

	dir := t.TempDir()
	beside, err := Create(filepath.Join(dir, LocalName), "x-0")
	require.NoError(t, err)
	for _, home := range []string{home, ""} {
		found, err = ByConfigDir(home, dir)
		require.NoError(t, err)
		require.Equal(t, beside, found)
	}
	// The project then gave up its state_dir: the one that was used last is meant.
	later := made(t, home, "x", dir)
	found, err = ByConfigDir(home, dir)
	require.NoError(t, err)
	require.Equal(t, later, found)
}

// A copied project: each directory has its own workspace, though the records
// are the same.
func TestByConfigDirOfACopy(t *testing.T) {
	home, dir := t.TempDir(), t.TempDir()
	w := madeAt(t, filepath.Join(dir, "state"), "x-0", dir)
	copied := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.CopyFS(copied, os.DirFS(w.Root)))
	c, err := Open(copied)
	require.NoError(t, err)
	require.NoError(t, Register(home, w))
	require.NoError(t, Register(home, c))
	found, err := ByConfigDir(home, dir)
	require.NoError(t, err)
	require.Equal(t, w, found)

	now := time.Now()
	inside, outside := Entry{Root: "/p/state", Record: Record{Updated: now}}, Entry{Root: "/q/state", Record: Record{Updated: now}}
	require.Positive(t, compareUse(inside, outside, "/p"))
	require.Negative(t, compareUse(outside, inside, "/p"))
	require.Zero(t, compareUse(inside, inside, "/p"))
	outside.Record.Updated = now.Add(time.Second)
	require.Negative(t, compareUse(inside, outside, "/p"), "time comes first")
}
