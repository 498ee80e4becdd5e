package castra

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

func TestUpAndDown(t *testing.T) {
	w := newWorld(t, patient, vm("web", "count = 2"), vm("db"))
	w.up()
	require.Equal(t, []string{"web-0 running", "web-1 running", "db-0 running"}, w.states())
	require.Len(t, w.running(), 3)
	require.Equal(t, []string{"vm.overlay.prepared", "vm.start.chosen", "vm.launched", "vm.ready", noScript}, w.events.story("web-1"))
	for _, name := range []string{"web-0", "web-1", "db-0"} {
		s := w.status(name)
		require.Contains(t, w.running(), s.PID)
		require.Len(t, s.Forwards, 1)
		require.Equal(t, "root@127.0.0.1:", s.SSH[:len("root@127.0.0.1:")])
		require.Empty(t, s.Problem)
		require.FileExists(t, w.overlay(name))
	}
	w.down()
	w.cleanSlate()
	require.Equal(t, []string{"web-0 stopped", "web-1 stopped", "db-0 stopped"}, w.states())
}

func TestUpTwiceIsIdle(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up()
	pids, session := w.running(), w.session()
	w.events.forget()
	w.up()
	require.Equal(t, pids, w.running())
	require.Equal(t, session, w.session())
	require.Equal(t, []string{noScript}, w.events.story("web-0"))
	require.Contains(t, w.events.messages(), "2 VMs running as configured, nothing to do")
	w.down()
	w.cleanSlate()
}

func TestUpStartsWhatIsMissing(t *testing.T) {
	w := newWorld(t, patient, vm("web", "count = 2"), vm("db"))
	w.up("db")
	require.Equal(t, []string{"web-0 stopped", "web-1 stopped", "db-0 running"}, w.states())
	db := w.status("db-0").PID
	w.up("web") // a role is all its replicas
	require.Equal(t, db, w.status("db-0").PID)
	require.Len(t, w.running(), 3)
	w.events.forget()
	w.up()
	require.Contains(t, w.events.messages(), "3 VMs running as configured")
	w.down()
	w.cleanSlate()
}

func TestDownTwice(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.down() // nothing was ever made
	require.NoDirExists(t, w.layout().Root)
	require.Contains(t, w.events.messages(), "nothing runs")
	w.up()
	w.down()
	w.events.forget()
	w.down()
	require.Empty(t, w.events.of("web-0"))
	require.Contains(t, w.events.messages(), "nothing ran")
	w.cleanSlate()
}

// A restart takes no state along: overlay, host key, port and process are new.
func TestEachUpIsFresh(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	first := w.session().VMs["web-0"]
	require.NoError(t, os.WriteFile(first.Overlay.Path+".note", nil, 0o600))
	w.down()
	require.FileExists(t, first.Overlay.Path+".note", "not on record: not Castra's")
	require.NoError(t, os.Remove(first.Overlay.Path+".note"))
	w.up()
	second := w.session().VMs["web-0"]
	require.NotEqual(t, first.PID, second.PID)
	require.NotEqual(t, first.SSH.HostKey, second.SSH.HostKey)
	require.Equal(t, first.UUID, second.UUID)
	require.Equal(t, first.SSH.Identity, second.SSH.Identity)
	w.down()
	w.cleanSlate()
}

// What other commands need is on record, and nobody else may read it.
func TestRecordsAreWhole(t *testing.T) {
	w := newWorld(t, patient, vm("web", "[[vms.port_forwards]]\nguest = 80"))
	w.up()
	defer w.down()
	r := w.session().VMs["web-0"]
	require.Equal(t, "web", r.Role)
	require.Equal(t, w.status("web-0").PID, r.PID)
	require.NotZero(t, r.Overlay.ID)
	require.False(t, r.Ready.IsZero())
	require.Len(t, r.Forwards, 2)
	for _, f := range r.Forwards {
		require.NotZero(t, f.HostPort)
		require.Equal(t, "127.0.0.1", f.HostIP)
	}
	l := w.layout()
	for _, path := range []string{l.Session(), l.Record(), l.Snapshot(), l.Identity(), l.Overlay(w.open().id, "web-0"), l.Seed("web-0"), l.EventLog()} {
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), path)
	}
	st, err := os.Stat(l.Root)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())
	snapshot, err := os.ReadFile(l.Snapshot())
	require.NoError(t, err)
	require.Equal(t, string(w.open().config.Snapshot()), string(snapshot))
}

// The journal tells the same story as the reporter.
func TestEventsAreJournalled(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	w.down()
	f, err := os.Open(w.layout().EventLog())
	require.NoError(t, err)
	defer f.Close()
	journal := readRecords(t, f)
	heard := w.events.all()
	require.Len(t, journal, len(heard))
	for i := range heard {
		require.Equal(t, heard[i].Event, journal[i].Event)
		require.Equal(t, w.open().id, journal[i].Workspace)
	}
	require.Equal(t, event.CommandAccepted{Command: "up"}, heard[0].Event)
}

func TestExec(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db", "count = 2"))
	run := func(vm, line, stdin string) (string, error) { return w.exec(vm, line, stdin) }

	_, err := run("web", "true", "")
	require.ErrorAs(t, err, new(*NotRunningError))
	w.up()
	out, err := run("web", "printf %s $CASTRA_FAKE_GUEST", "") // the role of a lone replica
	require.NoError(t, err)
	require.Equal(t, "web-0", out)
	out, err = run("db-1", "tr a-z A-Z; printf %s $CASTRA_FAKE_GUEST", "shout ")
	require.NoError(t, err)
	require.Equal(t, "SHOUT db-1", out)

	_, err = run("db", "true", "")
	require.ErrorAs(t, err, new(*UnknownVMError), "two VMs have this role")
	require.ErrorContains(t, err, "db-0, db-1")

	_, err = run("web", "exit 42", "")
	require.Equal(t, 42, exitStatus(err))
	_, err = run("web", "kill -TERM $$", "")
	require.Equal(t, 128+15, exitStatus(err))
	w.down()
	w.cleanSlate()
}
