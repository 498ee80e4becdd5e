package workspace

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/renameio/v2"
	"github.com/stretchr/testify/require"
)

// killedWhileWriting leaves what one leaves that is killed before it renames.
func killedWhileWriting(t *testing.T, path string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	require.NoError(t, err)
	_, err = f.Write([]byte("half"))
	require.NoError(t, err)
	require.NoError(t, f.File.Close())
	return f.Name()
}

func TestRemoveStaged(t *testing.T) {
	w, err := Create(t.TempDir(), "a-0")
	require.NoError(t, err)
	left := []string{
		killedWhileWriting(t, w.Seed("web")),
		killedWhileWriting(t, w.Vars("web")),
		killedWhileWriting(t, w.Session()),
		killedWhileWriting(t, filepath.Join(w.Root, bootstrapName, "web.json")),
	}
	for _, name := range []string{w.Root + "/" + stagedMarker, w.join(metadataName, ".new-")} {
		f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+"*")
		require.NoError(t, err)
		require.NoError(t, f.Close())
		left = append(left, f.Name())
	}
	kept := []string{w.Seed("web"), w.Session(), w.join(".notes2"), w.join(overlaysName, ".notes"), w.join(overlaysName, "web-0"), w.join("images", ".x1")}
	for _, name := range kept {
		require.NoError(t, os.WriteFile(name, []byte("whole"), 0o600))
	}
	canary := filepath.Join(t.TempDir(), "canary")
	require.NoError(t, os.WriteFile(canary, nil, 0o600))
	require.NoError(t, os.Symlink(canary, w.join(metadataName, ".link1")))
	require.NoError(t, os.Mkdir(w.join(metadataName, ".dir1"), 0o700))

	gone, err := w.RemoveStaged()
	require.NoError(t, err)
	require.Len(t, gone, len(left))
	for _, name := range left {
		require.NoFileExists(t, name)
	}
	for _, name := range append(kept, canary, w.join(metadataName, ".link1")) {
		require.FileExists(t, name)
	}
	require.DirExists(t, w.join(metadataName, ".dir1"))
	gone, err = w.RemoveStaged()
	require.NoError(t, err)
	require.Empty(t, gone)
}

func TestRemoveStagedFollowsNothing(t *testing.T) {
	w, err := Create(t.TempDir(), "a-0")
	require.NoError(t, err)
	away := t.TempDir()
	half := killedWhileWriting(t, filepath.Join(away, "x"))
	require.NoError(t, os.Symlink(away, w.Overlays()))
	gone, err := w.RemoveStaged()
	require.NoError(t, err)
	require.Empty(t, gone)
	require.FileExists(t, half)
}

func TestHealRemovesWhatWasStaged(t *testing.T) {
	home := t.TempDir()
	elsewhere(t, home, "far-0")
	half := killedWhileWriting(t, index(t, home)[0])
	require.NoError(t, heal(home))
	require.NoFileExists(t, half)
	require.Len(t, index(t, home), 1)
}

// CreateFile takes with it what killed ones had staged for the same file, and
// goes on where another that was first has taken its own.
func TestCreateFileRemovesWhatWasStaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	half, other := filepath.Join(dir, ".new-key-1"), filepath.Join(dir, ".new-host-1")
	for _, name := range []string{half, other} {
		require.NoError(t, os.WriteFile(name, []byte("half"), 0o600))
	}
	require.NoError(t, CreateFile(path, ".new-key-", []byte("whole")))
	require.NoFileExists(t, half)
	require.FileExists(t, other, "of another key")
	require.NoError(t, CreateFile(path, ".new-key-", []byte("late")))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "whole", string(data))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}

func TestCreateFileAtOnce(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), "key")
		faults := make(chan error)
		for i := range 8 {
			go func() { faults <- CreateFile(path, ".new-key-", []byte{byte('a' + i)}) }()
		}
		for range 8 {
			require.NoError(t, <-faults)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, entries, 1)
	}
}
