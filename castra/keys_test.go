package castra

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A6: a key that is damaged is kept to be looked at, and replaced: it would keep every up from working.
func TestDamagedKey(t *testing.T) {
	for name, path := range map[string]func(w *world) string{
		"of the workspace": func(w *world) string { return w.layout().Identity() },
		"shared":           func(w *world) string { return filepath.Join(w.open().keys, "id_ed25519") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			w.state = filepath.Join(filepath.Dir(w.dir), "state")
			w.up()
			w.down()
			key := path(w)
			good := mustRead(t, key)
			require.NoError(t, os.WriteFile(key, good[:len(good)/2], 0o600))
			if name == "shared" { // it is looked at when the workspace has none
				require.NoError(t, os.Remove(w.layout().Identity()))
			}
			w.up()
			require.Contains(t, w.events.messages(), "it is kept as "+key+".corrupt-1")
			require.Equal(t, name != "shared", string(good) == string(mustRead(t, key)), "that of the workspace comes back from the shared one")
			_, err := w.exec("web", "true", "")
			require.NoError(t, err)
			w.down()
			require.NoError(t, w.open().Clean(t.Context()))
			if name != "shared" {
				require.NoFileExists(t, key+".corrupt-1", "clean removes it")
			}
		})
	}
}
