package castra

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

// C3: twenty files of the user's where castra.toml puts an overlay, of any kind
// and content, are as they were after up, down and clean.
func TestUsersFilesAsOverlaysSoak(t *testing.T) {
	w := newWorld(t, patient, vm("web", `overlay = "disks/web.qcow2"`))
	disk := filepath.Join(w.dir, "disks/web.qcow2")
	qcow2 := filepath.Join(t.TempDir(), "own.qcow2")
	qemutest.WriteImage(t, qcow2, 1<<20)
	kept := 0
	for n := range 20 {
		content := map[int][]byte{0: {}, 1: mustRead(t, w.base), 2: mustRead(t, qcow2), 3: make([]byte, 4096), 4: []byte("QFI\xfb")}[n%6]
		if n%6 == 5 {
			content = fmt.Appendf(nil, "thesis %d", n)
		}
		w.write("disks/web.qcow2", string(content))
		require.NoError(t, os.Chmod(disk, os.FileMode(0o600|n%8)))
		before, err := os.Stat(disk)
		require.NoError(t, err)
		require.ErrorAs(t, w.refusedUp(UpOptions{}), new(*OverlayExistsError))
		w.down()
		require.NoError(t, w.open().Clean(t.Context()))
		after, err := os.Stat(disk)
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after))
		require.Equal(t, before.Mode(), after.Mode())
		require.Equal(t, content, mustRead(t, disk))
		kept++
		require.NoError(t, os.Remove(disk))
	}
	soak.AtLeast(t, "C3", "files of the user's kept in an overlay's place", 20, float64(kept))

	// What the user has written into Castra's own file is the user's.
	w.up()
	w.kill("web-0")
	require.NoError(t, os.WriteFile(disk, []byte("thesis"), 0o600))
	require.ErrorContains(t, w.open().Down(t.Context()), "not the file Castra made")
	require.Equal(t, "thesis", string(mustRead(t, disk)))
	require.NoError(t, os.Remove(disk))
	w.down()
	w.cleanSlate()
}
