package workspace

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func create(t *testing.T) *Workspace {
	t.Helper()
	w, err := Create(filepath.Join(t.TempDir(), "ws"), "demo-0123456789ab")
	require.NoError(t, err)
	return w
}

func TestID(t *testing.T) {
	a := ID("My Project!", "/src/a")
	require.Regexp(t, `^my-project-[0-9a-f]{12}$`, a)
	require.Equal(t, a, ID("My Project!", "/src/a/"))
	require.NotEqual(t, a, ID("My Project!", "/src/b"), "two checkouts never share a workspace")
	require.Regexp(t, `^project-[0-9a-f]{12}$`, ID("世界", "/src/a"))
	rapid.Check(t, func(t *rapid.T) {
		id := ID(rapid.String().Draw(t, "name"), "/src")
		require.True(t, filepath.IsLocal(id), id)
		require.Regexp(t, `^[a-z0-9]+(-[a-z0-9]+)*$`, id)
		require.LessOrEqual(t, len(id), slugLength+1+hashLength)
	})
}

func TestCreateMakesTheContractsDirectories(t *testing.T) {
	w := create(t)
	for _, dir := range []string{w.Root, w.Logs(), w.Images()} {
		st, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o700), st.Mode().Perm(), dir)
	}
	again, err := Create(w.Root, "other-000000000000")
	require.NoError(t, err)
	require.Equal(t, w.ID, again.ID, "a workspace keeps the ID it was made with")
	opened, err := Open(w.Root)
	require.NoError(t, err)
	require.Equal(t, w, opened)
}

// Several processes may make one workspace at the same moment.
func TestCreateAtOnce(t *testing.T) {
	for range 50 {
		root := filepath.Join(t.TempDir(), "ws")
		ids := make(chan string, 8)
		for i := range cap(ids) {
			go func() {
				w, err := Create(root, "demo-"+string(rune('a'+i)))
				if err != nil {
					ids <- err.Error()
					return
				}
				ids <- w.ID
			}()
		}
		first := <-ids
		require.Regexp(t, "^demo-[a-h]$", first)
		for range cap(ids) - 1 {
			require.Equal(t, first, <-ids)
		}
		left, err := filepath.Glob(filepath.Join(root, stagedMarker+"*"))
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestCreateRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, root string)
		says    string
	}{
		"a directory of the user's": {func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(root, "thesis.txt"), nil, 0o600))
		}, "thesis.txt"},
		"a file": {func(t *testing.T, root string) {
			require.NoError(t, os.WriteFile(root, nil, 0o600))
		}, "not a directory"},
		"a foreign marker": {func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(root, markerName), []byte("{}"), 0o600))
		}, "not a marker"},
		"others can write": {func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root, 0o700))
			require.NoError(t, os.Chmod(root, 0o777))
		}, "mode 0777"},
		"logs is a symlink": {func(t *testing.T, root string) {
			_, err := Create(root, "x-0")
			require.NoError(t, err)
			require.NoError(t, os.Remove(filepath.Join(root, logsName)))
			require.NoError(t, os.Symlink(t.TempDir(), filepath.Join(root, logsName)))
		}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "ws")
			c.prepare(t, root)
			_, err := Create(root, "x-0")
			var pe *PreflightError
			require.ErrorAs(t, err, &pe)
			require.ErrorContains(t, err, c.says)
			require.NotEmpty(t, pe.Hint())
		})
	}
}

// G3: modes hold under any umask.
func TestWriteFileModes(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077} {
		path := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(path, nil, 0o644), "an older file's mode does not stay")
		old := unix.Umask(mask)
		err := WriteFile(path, []byte("x"))
		unix.Umask(old)
		require.NoError(t, err)
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), st.Mode().Perm())
	}
}

func TestWriteFileFailureLeavesTheOldFile(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, WriteFile(path, []byte("old")))
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { os.Chmod(dir, 0o700) })
	require.ErrorIs(t, WriteFile(path, []byte("new")), fs.ErrPermission)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(b))
}

func TestSessionRoundTrip(t *testing.T) {
	w := create(t)
	s, err := w.LoadSession()
	require.NoError(t, err)
	require.Empty(t, s.VMs)
	s.VMs["web-0"] = VM{Name: "web-0", Role: "web", Settings: map[string]string{"cpus": "2"}, Launched: time.Now().UTC().Truncate(time.Second)}
	s.Waits = Waits{Graceful: time.Second}
	require.NoError(t, w.SaveSession(s))
	again, err := w.LoadSession()
	require.NoError(t, err)
	require.Equal(t, s, again)
}

// B7, failure bank 89: no state of the file is taken for a session that it is
// not, and a newer one is never written over.
func TestDamagedSessions(t *testing.T) {
	w := create(t)
	s, err := w.LoadSession()
	require.NoError(t, err)
	s.VMs["web-0"] = VM{Name: "web-0"}
	require.NoError(t, w.SaveSession(s))
	whole, err := os.ReadFile(w.Session())
	require.NoError(t, err)

	damaged := map[string][]byte{"empty": nil, "array": []byte("[]"), "null": []byte("null"), "object": []byte("{}"), "garbage behind": append(whole, '}'), "wrong name": []byte(strings.Replace(string(whole), `"name": "web-0"`, `"name": "../x"`, 1))}
	for cut := 1; cut < len(whole)-2; cut++ {
		damaged["cut at "+string(rune('0'+cut%10))+" of "+time.Duration(cut).String()] = whole[:cut]
	}
	for name, data := range damaged {
		require.NoError(t, os.WriteFile(w.Session(), data, 0o600))
		_, err := w.LoadSession()
		var re *RecordError
		require.ErrorAs(t, err, &re, name)
		require.False(t, re.Newer)
	}

	aside, err := w.SetAside()
	require.NoError(t, err)
	require.FileExists(t, aside)
	s, err = w.LoadSession()
	require.NoError(t, err)
	require.Empty(t, s.VMs)

	require.NoError(t, os.WriteFile(w.Session(), []byte(`{"schema_version": 99}`), 0o600))
	_, err = w.LoadSession()
	var re *RecordError
	require.ErrorAs(t, err, &re)
	require.True(t, re.Newer)
}

func TestSessionIsNoFifo(t *testing.T) {
	w := create(t)
	require.NoError(t, w.MakeDir(w.Metadata()))
	require.NoError(t, unix.Mkfifo(w.Session(), 0o600))
	_, err := w.LoadSession()
	require.ErrorContains(t, err, "not a regular file")
}

func TestLockTellsWhoHoldsIt(t *testing.T) {
	w := create(t)
	ctx := context.Background()
	unlock, err := w.Lock(ctx, "mage up", func(Holder) { t.Error("nobody holds it") })
	require.NoError(t, err)

	var told []Holder
	_, err = w.lock(ctx, "mage down", 100*time.Millisecond, func(h Holder) { told = append(told, h) })
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	require.Len(t, told, 1)
	require.Equal(t, os.Getpid(), told[0].PID)
	require.Contains(t, err.Error(), `"mage up"`)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = w.Lock(cancelled, "mage down", func(Holder) {})
	require.ErrorIs(t, err, context.Canceled)

	got := make(chan error, 1)
	go func() {
		second, err := w.Lock(ctx, "mage down", func(Holder) {})
		if err == nil {
			second()
		}
		got <- err
	}()
	unlock()
	require.NoError(t, <-got, "the one who waits comes next")
}

// E4: root does not write into a user's workspace, and so cannot lock the user
// out.
func TestLockOfAnotherUsersWorkspace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make one")
	}
	w := create(t)
	require.NoError(t, os.Chown(w.Root, 65534, 65534))
	_, err := w.Lock(t.Context(), "mage down", func(Holder) {})
	var pe *PreflightError
	require.ErrorAs(t, err, &pe)
	require.ErrorContains(t, err, "belongs to uid 65534")
	require.Contains(t, pe.Hint(), "run as its owner")
}

// C1, C2: clean removes what is on its list, never follows a symlink, and
// leaves the rest.
func TestCleanKeepsWhatIsNotCastras(t *testing.T) {
	w := create(t)
	outside := filepath.Join(t.TempDir(), "canary")
	require.NoError(t, os.Mkdir(outside, 0o700))
	canary := filepath.Join(outside, "f")
	require.NoError(t, os.WriteFile(canary, []byte("alive"), 0o600))
	kept := []string{"notes.txt", "mydir/f", markerName, lockName, "web-0.pid", "file.qmp", "metadata/workspace.json", "metadata/id_ed25519"}
	gone := []string{"images/a.qcow2", "images/sub/b", "overlays/o.qcow2", "logs/web-0.log", "logs/bootstrap/r.json", "bootstrap/x/run.sh", "handshakes/h", "metadata/session.json", "metadata/session.json.corrupt-1", "metadata/workspace.json.corrupt-1"}
	for _, name := range append(append([]string{}, kept...), gone...) {
		path := filepath.Join(w.Root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		if name != markerName {
			require.NoError(t, os.WriteFile(path, make([]byte, 5000), 0o600))
		}
	}
	link := filepath.Join(w.Images(), "link")
	require.NoError(t, os.Symlink(outside, link))

	items, err := w.Removable(RemoveOptions{})
	require.NoError(t, err)
	var freed int64
	removed := map[string]bool{}
	require.NoError(t, w.Clean(items, func(i Item) { freed += i.Bytes; removed[i.Path] = true }))
	require.Len(t, removed, len(items), "the plan is what was done")
	for _, name := range kept {
		require.FileExists(t, filepath.Join(w.Root, name))
	}
	for _, name := range gone {
		require.NoFileExists(t, filepath.Join(w.Root, name))
	}
	_, err = os.Lstat(link)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.FileExists(t, canary)
	require.GreaterOrEqual(t, freed, int64(len(gone)*5000))
}

func TestCleanOfASymlinkedDirectory(t *testing.T) {
	w := create(t)
	outside := t.TempDir()
	canary := filepath.Join(outside, "f")
	require.NoError(t, os.WriteFile(canary, nil, 0o600))
	require.NoError(t, os.Remove(w.Images()))
	require.NoError(t, os.Symlink(outside, w.Images()))
	items, err := w.Removable(RemoveOptions{})
	require.NoError(t, err)
	require.NoError(t, w.Clean(items, func(Item) {}))
	require.FileExists(t, canary)
}

// C3: a file that took the overlay's name is not the overlay.
func TestRemoveMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "o.qcow2")
	require.NoError(t, os.WriteFile(path, []byte("ours"), 0o600))
	id, err := Identify(path)
	require.NoError(t, err)

	moved := path + ".ours"
	require.NoError(t, os.Rename(path, moved))
	require.NoError(t, os.WriteFile(path, []byte("thesis"), 0o600))
	_, err = RemoveMade(path, id)
	require.ErrorContains(t, err, "not the file Castra made")
	require.FileExists(t, path)

	n, err := RemoveMade(moved, id)
	require.NoError(t, err)
	require.Positive(t, n)
	n, err = RemoveMade(moved, id)
	require.NoError(t, err, "gone is no error")
	require.Zero(t, n)
	_, err = RemoveMade(filepath.Join(filepath.Dir(path), "none", "x"), id)
	require.False(t, errors.Is(err, fs.ErrNotExist))
	require.NoError(t, err)
}

func TestRemoveOwnStaysInside(t *testing.T) {
	w := create(t)
	outside := filepath.Join(filepath.Dir(w.Root), "canary")
	require.NoError(t, os.WriteFile(outside, nil, 0o600))
	require.Error(t, w.RemoveOwn(outside))
	require.FileExists(t, outside)
}
