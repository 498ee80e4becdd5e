package workspace

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// made gives a workspace with a record under home.
func made(t testing.TB, home, name, dir string) *Workspace {
	t.Helper()
	id := ID(name, dir)
	return madeAt(t, DefaultRoot(home, id), id, dir)
}

func madeAt(t testing.TB, root, id, dir string) *Workspace {
	t.Helper()
	w, err := Create(root, id)
	require.NoError(t, err)
	require.NoError(t, w.SaveRecord(Record{Project: "demo", Config: filepath.Join(dir, "castra.toml")}, []byte("# snapshot\n")))
	return w
}

// roots gives the roots of entries, those with a fault marked.
func roots(entries []Entry) []string {
	var all []string
	for _, e := range entries {
		root := e.Root
		if e.Fault != nil {
			root += "!"
		}
		all = append(all, root)
	}
	return all
}

// Failure bank 88: what is broken is one line each, and hides nothing.
func TestAllWithBrokenWorkspaces(t *testing.T) {
	home := t.TempDir()
	a, b := made(t, home, "a", "/src/a"), made(t, home, "b", "/src/b")
	fresh, err := Create(DefaultRoot(home, "fresh-0"), "fresh-0")
	require.NoError(t, err)
	cut := made(t, home, "cut", "/src/cut")
	require.NoError(t, os.WriteFile(cut.Record(), []byte(`{"schema_`), 0o600))
	later := made(t, home, "later", "/src/later")
	require.NoError(t, os.WriteFile(later.Record(), []byte(`{"schema_version": 99, "vms": {}}`), 0o600))

	in := func(name string) string { return DefaultRoot(home, name) }
	require.NoError(t, os.Mkdir(in("empty"), 0o700))
	require.NoError(t, os.Mkdir(in("unmarked"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(in("unmarked"), "f"), nil, 0o600))
	require.NoError(t, os.WriteFile(in("file"), nil, 0o600))
	require.NoError(t, os.Symlink("/no/such/place", in("dangling")))
	require.NoError(t, os.Symlink(a.Root, in("twice")))
	require.NoError(t, os.Mkdir(in("foreign"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(in("foreign"), markerName), []byte(`{"magic":"castra workspace","id":"../../up"}`), 0o600))
	for _, litter := range []string{".a.swp", "b.swp", "c~", ".DS_Store"} {
		require.NoError(t, os.WriteFile(in(litter), nil, 0o600))
	}

	entries, err := All(home)
	require.NoError(t, err)
	require.Equal(t, []string{
		a.Root, b.Root, cut.Root + "!", in("dangling") + "!", in("empty") + "!", in("file") + "!", in("foreign") + "!", fresh.Root, later.Root + "!", in("unmarked") + "!",
	}, roots(entries))
	says := map[string]string{"dangling": "a symlink to nothing", "empty": "an empty directory", "file": "not a directory", "foreign": "not a marker", "unmarked": "no workspace", cut.ID: "workspace.json", later.ID: "newer"}
	for _, e := range entries {
		if e.Fault != nil {
			require.ErrorContains(t, e.Fault, says[e.ID], e.ID)
			require.NotContains(t, e.Fault.Error(), "\n")
		}
		require.False(t, e.Elsewhere)
	}
	require.Equal(t, "/src/a/castra.toml", entries[0].Record.Config)
	require.Equal(t, a.ID, entries[0].ID)

	_, err = Find(home, "empty")
	require.ErrorContains(t, err, "an empty directory")
	found, err := Find(home, cut.ID)
	require.NoError(t, err, "a workspace with a damaged record can still be taken down")
	require.Equal(t, cut, found)
}

func TestAllOfAnUnreadableDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read anything")
	}
	home := t.TempDir()
	whole, closed := made(t, home, "a", "/src/a"), made(t, home, "closed", "/src/b")
	require.NoError(t, os.Chmod(closed.Root, 0))
	t.Cleanup(func() { os.Chmod(closed.Root, 0o700) })
	entries, err := All(home)
	require.NoError(t, err)
	require.Equal(t, []string{whole.Root, closed.Root + "!"}, roots(entries))
	require.ErrorContains(t, entries[1].Fault, "permission denied")
}

func TestAllWithoutAHome(t *testing.T) {
	for _, home := range []string{"", filepath.Join(t.TempDir(), "none")} {
		t.Chdir(t.TempDir())
		require.NoError(t, os.MkdirAll("projects/x", 0o700), "what lies in the working directory is nobody's home")
		entries, err := All(home)
		require.NoError(t, err)
		require.Empty(t, entries)
		require.NoError(t, heal(home))
	}
	home := t.TempDir()
	require.NoError(t, os.WriteFile(projects(home), nil, 0o600))
	_, err := All(home)
	require.ErrorContains(t, err, projects(home))
}

// Reading leaves no trace: not an index, not a time.
func TestAllWritesNothing(t *testing.T) {
	home, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "ws")
	w := madeAt(t, elsewhere, "far-0", "/src/far")
	require.NoError(t, Register(home, w))
	require.NoError(t, os.Rename(elsewhere, elsewhere+"2"))
	made(t, home, "a", "/src/a")
	before := tree(t, home)
	_, err := All(home)
	require.NoError(t, err)
	_, err = Find(home, "nothing")
	require.Error(t, err)
	_, err = ByConfigDir(home, "/src/b")
	require.Error(t, err)
	require.Equal(t, before, tree(t, home))
}

// tree gives every path below dir with its mode, size and time.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			all = append(all, fmt.Sprint(strings.TrimPrefix(path, dir), info.Mode(), info.Size(), info.ModTime()))
		}
		return err
	}))
	return all
}

// Failure bank 13, 14: names that look alike are told apart by the directory.
func TestNamesThatLookAlike(t *testing.T) {
	require.NotEqual(t, ID("Demo", "/src/a"), ID("demo", "/src/b"))
	require.NotEqual(t, ID("a b", "/src/a"), ID("a-b", "/src/b"))
	require.Equal(t, strings.ToLower(ID("Demo", "/src/A")), ID("Demo", "/src/A"), "a disk may not tell letter cases apart")
}

func BenchmarkAll100(b *testing.B) {
	home := b.TempDir()
	for i := range 90 {
		made(b, home, "demo", fmt.Sprint("/src/", i))
	}
	for i := range 10 {
		require.NoError(b, Register(home, madeAt(b, filepath.Join(b.TempDir(), "ws"), fmt.Sprint("far-", i), "/src/far")))
	}
	for b.Loop() {
		entries, err := All(home)
		if err != nil || len(entries) != 100 {
			b.Fatal(len(entries), err)
		}
	}
}

// A home whose path holds what a pattern would be made of.
func TestUnderHomeTakesItsPathAsItIs(t *testing.T) {
	home := filepath.Join(t.TempDir(), "[a]*?")
	w, err := Create(DefaultRoot(home, ID("shop", "/p")), ID("shop", "/p"))
	require.NoError(t, err)
	found, err := UnderHome(home, "/p")
	require.NoError(t, err)
	require.Equal(t, w.Root, found.Root)
	_, err = UnderHome(home, "/q")
	require.ErrorIs(t, err, os.ErrNotExist)
}
