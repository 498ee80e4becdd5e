package workspace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// elsewhere gives a registered workspace outside home.
func elsewhere(t *testing.T, home, id string) *Workspace {
	t.Helper()
	w := madeAt(t, filepath.Join(t.TempDir(), "proj", LocalName), id, "/src/"+id)
	require.NoError(t, Register(home, w))
	return w
}

// runQEMU has a process named like QEMU work in dir until the test ends.
func runQEMU(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("a moved workspace is found on Linux alone")
	}
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "qemu-system-x86_64")
	require.NoError(t, os.Symlink(sleep, program))
	cmd := exec.Command(program, "600")
	cmd.Dir = dir
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

func index(t *testing.T, home string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(home, "index", "*"))
	require.NoError(t, err)
	return files
}

func heal(home string) error {
	_, err := Heal(home)
	return err
}

func TestRegister(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, Register(home, made(t, home, "a", "/src/a")))
	require.NoDirExists(t, indexDir(home), "what lies under projects needs no entry")
	w := elsewhere(t, home, "far-0")
	require.Len(t, index(t, home), 1)
	before := tree(t, home)
	require.NoError(t, Register(home, w))
	require.Equal(t, before, tree(t, home), "a second time nothing is written")
	require.NoError(t, Register("", w))

	entries, err := All(home)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.False(t, entries[0].Elsewhere)
	require.True(t, entries[1].Elsewhere)
	require.Equal(t, w.Root, entries[1].Root)
	require.Equal(t, "/src/far-0/castra.toml", entries[1].Record.Config)
	require.NoError(t, heal(home))
	require.Equal(t, before, tree(t, home), "there is nothing to heal")
}

// Failure bank 16: by whatever path it was registered, it is one workspace.
func TestOneWorkspaceByTwoPaths(t *testing.T) {
	home := t.TempDir()
	w := elsewhere(t, home, "far-0")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(w.Root, link))
	require.NoError(t, Register(home, &Workspace{Layout{link}, w.ID}))
	require.Len(t, index(t, home), 2)
	entries, err := All(home)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	found, err := Find(home, "far-0")
	require.NoError(t, err)
	require.Equal(t, w.ID, found.ID)
}

func TestHealDropsWhatIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, home string, w *Workspace)
		kept bool
	}{
		"whole":   {func(*testing.T, string, *Workspace) {}, true},
		"removed": {func(t *testing.T, _ string, w *Workspace) { require.NoError(t, os.RemoveAll(w.Root)) }, false},
		"project removed": {func(t *testing.T, _ string, w *Workspace) {
			require.NoError(t, os.RemoveAll(filepath.Dir(w.Root)))
		}, false},
		"emptied": {func(t *testing.T, _ string, w *Workspace) {
			require.NoError(t, os.Remove(filepath.Join(w.Root, markerName)))
		}, false},
		"a file in its place": {func(t *testing.T, _ string, w *Workspace) {
			require.NoError(t, os.RemoveAll(w.Root))
			require.NoError(t, os.WriteFile(w.Root, nil, 0o600))
		}, false},
		"another workspace in its place": {func(t *testing.T, _ string, w *Workspace) {
			require.NoError(t, os.RemoveAll(w.Root))
			_, err := Create(w.Root, "other-0")
			require.NoError(t, err)
		}, false},
		"a marker that cannot be made out": {func(t *testing.T, _ string, w *Workspace) {
			require.NoError(t, os.WriteFile(filepath.Join(w.Root, markerName), []byte("{"), 0o600))
		}, true},
		"damaged entry": {func(t *testing.T, home string, w *Workspace) {
			require.NoError(t, os.WriteFile(indexFile(home, w.Root), []byte("{"), 0o600))
		}, false},
		"entry of another root": {func(t *testing.T, home string, w *Workspace) {
			require.NoError(t, WriteJSON(indexFile(home, w.Root), indexed{Schema: 1, Root: "/elsewhere", ID: w.ID}))
		}, false},
		"entry of a relative root": {func(t *testing.T, home string, w *Workspace) {
			require.NoError(t, WriteJSON(indexFile(home, w.Root), indexed{Schema: 1, Root: ".", ID: w.ID}))
		}, false},
		"entry of a later Castra": {func(t *testing.T, home string, w *Workspace) {
			require.NoError(t, os.WriteFile(indexFile(home, w.Root), []byte(`{"schema_version":2,"root":[]}`), 0o600))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			w := elsewhere(t, home, "far-0")
			beside := elsewhere(t, home, "near-0")
			c.harm(t, home, w)
			require.NoError(t, heal(home))
			want := []string{indexFile(home, beside.Root)}
			if c.kept {
				want = append(want, indexFile(home, w.Root))
			}
			require.ElementsMatch(t, want, index(t, home))
			entries, err := All(home)
			require.NoError(t, err)
			require.Contains(t, roots(entries), beside.Root)
		})
	}
}

// B8, failure bank 17: what was moved while its VM runs is found at its new
// place by every reader, and entered there by the next writer.
func TestMovedWhileItRuns(t *testing.T) {
	home := t.TempDir()
	for i := range 10 {
		w := elsewhere(t, home, fmt.Sprint("far-", i))
		runQEMU(t, w.Root)
		proj := filepath.Dir(w.Root)
		require.NoError(t, os.Rename(proj, proj+"2"))
		now := filepath.Join(proj+"2", LocalName)
		before := tree(t, home)
		found, err := Find(home, w.ID)
		require.NoError(t, err)
		require.Equal(t, now, found.Root)
		require.Equal(t, before, tree(t, home))

		require.NoError(t, heal(home))
		require.NoFileExists(t, indexFile(home, w.Root))
		require.FileExists(t, indexFile(home, now))
		found, err = Find(home, now)
		require.NoError(t, err)
		require.Equal(t, w.ID, found.ID)
	}
	require.Len(t, index(t, home), 10)
	entries, err := All(home)
	require.NoError(t, err)
	require.Len(t, entries, 10)
}

// B8: a copy has the original's ID. Neither is taken for the other.
func TestCopiedWorkspace(t *testing.T) {
	home := t.TempDir()
	w := elsewhere(t, home, "far-0")
	runQEMU(t, w.Root)
	copied := filepath.Join(t.TempDir(), "copy", LocalName)
	require.NoError(t, os.CopyFS(copied, os.DirFS(w.Root)))
	c, err := Open(copied)
	require.NoError(t, err)
	require.NoError(t, Register(home, c))
	require.NoError(t, heal(home))
	entries, err := All(home)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{w.Root, copied}, roots(entries))

	_, err = Find(home, "far-0")
	var ambiguous *AmbiguousWorkspaceError
	require.ErrorAs(t, err, &ambiguous)
	require.ElementsMatch(t, []string{w.Root, copied}, ambiguous.Roots)
	require.NotEmpty(t, ambiguous.Hint())

	// The copy is removed: it is gone, and did not move to the original.
	require.NoError(t, os.RemoveAll(copied))
	require.NoError(t, heal(home))
	entries, err = All(home)
	require.NoError(t, err)
	require.Equal(t, []string{w.Root}, roots(entries))
	require.Equal(t, []string{indexFile(home, w.Root)}, index(t, home))
}

// A directory of a QEMU that is not Castra's is no workspace.
func TestForeignQEMUIsNoMovedWorkspace(t *testing.T) {
	home := t.TempDir()
	w := elsewhere(t, home, "far-0")
	require.NoError(t, os.RemoveAll(w.Root))
	runQEMU(t, t.TempDir())
	other := madeAt(t, filepath.Join(t.TempDir(), "ws"), "other-0", "/src/other")
	runQEMU(t, other.Root)
	entries, err := All(home)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// A workspace that was made again after a Heal had found it gone keeps its entry.
func TestHealLeavesWhatIsBack(t *testing.T) {
	home := t.TempDir()
	w := elsewhere(t, home, "back-0")
	_, err := removeIndexed(home, []string{indexFile(home, w.Root)})
	require.NoError(t, err)
	require.Equal(t, []string{indexFile(home, w.Root)}, index(t, home))
}

// Failure bank 88: readers list what is whole while writers come and go.
func TestIndexAtOnce(t *testing.T) {
	home := t.TempDir()
	steady := elsewhere(t, home, "steady-0")
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for i := range 4 {
		root := filepath.Join(t.TempDir(), "ws")
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				w, err := Create(root, fmt.Sprint("fleeting-", i))
				if err == nil {
					err = errors.Join(Register(home, w), heal(home), os.RemoveAll(root), heal(home))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 100 {
		entries, err := All(home)
		if err != nil || !slices.Contains(roots(entries), steady.Root) {
			t.Errorf("%v: %v", roots(entries), err)
			break
		}
	}
	close(stop)
	writers.Wait()
	require.NoError(t, heal(home))
	require.Equal(t, []string{indexFile(home, steady.Root)}, index(t, home))
}
