package castra

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// C3: a user's file where castra.toml puts an overlay stays as it is.
func TestExplicitOverlay(t *testing.T) {
	w := newWorld(t, patient, vm("web", `overlay = "disks/web.qcow2"`))
	disk := filepath.Join(w.dir, "disks/web.qcow2")
	for name, content := range map[string][]byte{"a thesis": []byte("dear"), "an empty file": {}, "a qcow2": mustRead(t, w.base)} {
		w.write("disks/web.qcow2", string(content))
		before, err := os.Stat(disk)
		require.NoError(t, err)
		err = w.refusedUp(UpOptions{})
		require.ErrorAs(t, err, new(*OverlayExistsError), name)
		require.ErrorContains(t, err, disk)
		w.down()
		require.NoError(t, w.open().Clean(t.Context()))
		after, err := os.Stat(disk)
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after))
		require.Equal(t, content, mustRead(t, disk), name)
	}
	require.NoError(t, os.Remove(disk))
	w.up()
	require.FileExists(t, disk)
	w.kill("web-0")
	w.up() // Castra's own leftover is no obstacle
	w.down()
	require.NoFileExists(t, disk)
	w.cleanSlate()

	// A file that the user put into the overlay's place is kept too.
	w.up()
	w.kill("web-0")
	require.NoError(t, os.Rename(disk, disk+".old"))
	w.write("disks/web.qcow2", "dear")
	for _, err := range []error{w.open().Down(t.Context()), w.open().Up(t.Context(), UpOptions{})} {
		require.ErrorContains(t, err, "not the file Castra made")
	}
	require.Equal(t, "dear", string(mustRead(t, disk)))
	require.NoError(t, os.Remove(disk))
	w.down()
	w.cleanSlate()
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// An overlay below .castra/ goes into the workspace.
func TestRebasedOverlay(t *testing.T) {
	w := newWorld(t, patient, vm("web", `overlay = ".castra/overlays/mine.qcow2"`))
	w.up()
	require.FileExists(t, filepath.Join(w.layout().Overlays(), "mine.qcow2"))
	w.kill("web-0")
	w.up()
	w.down()
	w.cleanSlate()
}
