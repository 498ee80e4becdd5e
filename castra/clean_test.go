package castra

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

func TestClean(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	require.NoError(t, w.open().Clean(t.Context()), "nothing was ever made")
	w.up()
	err := w.open().Clean(t.Context())
	var running *RunningError
	require.ErrorAs(t, err, &running)
	require.Equal(t, []string{"web-0", "db-0"}, running.VMs)
	require.Equal(t, exitBusy, exitStatus(err))
	require.Equal(t, []string{"web-0 running", "db-0 running"}, w.states())

	l := w.layout()
	mine := filepath.Join(l.Root, "notes.txt")
	require.NoError(t, os.WriteFile(mine, []byte("mine"), 0o600))
	identity := mustRead(t, l.Identity())
	cached := filepath.Join(l.Images(), "cached.qcow2")
	require.NoError(t, os.WriteFile(cached, make([]byte, 8192), 0o600))
	o := w.options()
	o.Force = true
	w.events.forget()
	require.NoError(t, w.openWith(o).Clean(t.Context()))
	require.Empty(t, w.running())
	require.NoFileExists(t, cached)
	require.FileExists(t, mine)
	require.Equal(t, identity, mustRead(t, l.Identity()))
	require.Contains(t, w.events.story("web-0"), "vm.stopped graceful")
	var freed int64
	for _, rec := range w.events.all() {
		if e, ok := rec.Event.(event.Cleanup); ok {
			freed += e.Bytes
			require.NoFileExists(t, e.Path)
		}
	}
	require.GreaterOrEqual(t, freed, int64(8192))
	require.NoError(t, os.Remove(mine))
	w.cleanSlate()
	w.up()
	w.down()
	w.cleanSlate()
}
