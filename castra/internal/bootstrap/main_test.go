package bootstrap

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemutest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is one fake guest and a plan for it.
type bench struct {
	t      *testing.T
	server *qemutest.SSHServer
	login  guest.Login
	plan   Plan
	home   string // the guest's

	mu     sync.Mutex
	events []event.Event
}

func newBench(t *testing.T, script string) *bench {
	t.Helper()
	private, public := qemutest.NewKey(t)
	home := t.TempDir()
	server := qemutest.NewSSHServer(t, qemutest.SSHOptions{AuthorizedKeys: []string{public}, Dir: home})
	dir := t.TempDir()
	b := &bench{t: t, server: server, home: home,
		login: guest.Login{Addr: server.Addr(), User: "root", PrivateKey: private, HostKey: server.HostKey()},
		plan: Plan{VM: "web-0", Run: "20261125-r1", Mode: "auto", Script: filepath.Join(dir, "run.sh"),
			RemoteDir: filepath.Join(home, "remote dir"), HandshakeTimeout: 20 * time.Second,
			LogPath: filepath.Join(dir, "logs", "bootstrap", "web-0-1.json")},
	}
	require.NoError(t, os.WriteFile(b.plan.Script, []byte(script), 0o600))
	return b
}

func (b *bench) emit(e event.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

func (b *bench) run() (Result, error) {
	b.t.Helper()
	return Run(b.t.Context(), b.plan, b.login, b.emit)
}

func (b *bench) output(stream string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for _, e := range b.events {
		if o, ok := e.(event.BootstrapOutput); ok && o.Stream == stream {
			found = append(found, o.Line)
		}
	}
	return found
}

// everything is all that left Run: events, the error, and the log.
func (b *bench) everything(err error) string {
	b.t.Helper()
	events, jsonErr := json.Marshal(b.events)
	require.NoError(b.t, jsonErr)
	log, readErr := os.ReadFile(b.plan.LogPath)
	require.NoError(b.t, readErr)
	text := string(events) + string(log)
	if err != nil {
		text += err.Error()
	}
	return text
}

func (b *bench) log() logFile {
	b.t.Helper()
	data, err := os.ReadFile(b.plan.LogPath)
	require.NoError(b.t, err)
	var l logFile
	require.NoError(b.t, json.Unmarshal(data, &l))
	info, err := os.Stat(b.plan.LogPath)
	require.NoError(b.t, err)
	require.Equal(b.t, os.FileMode(0o600), info.Mode())
	return l
}

// requireClean says that nothing of the run is left in the guest.
func (b *bench) requireClean() {
	b.t.Helper()
	entries, err := os.ReadDir(b.plan.RemoteDir)
	if !os.IsNotExist(err) {
		require.NoError(b.t, err)
	}
	require.False(b.t, slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == b.plan.Run }))
}

func stepNames(steps []Step) []string {
	var names []string
	for _, s := range steps {
		names = append(names, s.Name+" "+s.Status)
	}
	return names
}
