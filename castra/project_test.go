package castra

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/workspace"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == sweptName {
		syscall.Exit(swept()) // os.Exit would take a second with the race detector
	}
	qemutest.Main(m)
}

const (
	// patience bounds waits that end within a second on an idle machine.
	patience = 30 * time.Second
	poll     = 5 * time.Millisecond

	envFakeQEMU = "CASTRA_FAKE_QEMU"
	envFakeImg  = "CASTRA_FAKE_QEMU_IMG"

	noScript = "bootstrap.planned skip: no script"
)

// Bounds of a shutdown, for [lifecycle]. A step that a test wants to see fail
// is short, and one that it wants to see succeed is long.
const (
	patient       = "graceful_shutdown_wait_secs = 30\nsigterm_wait_secs = 30\nsigkill_wait_secs = 30"
	hastyPowerOff = "graceful_shutdown_wait_secs = 1\nsigterm_wait_secs = 30\nsigkill_wait_secs = 30"
	hasty         = "graceful_shutdown_wait_secs = 1\nsigterm_wait_secs = 1\nsigkill_wait_secs = 30"
)

// world is a scratch project, a home for Castra's state, and fakes in PATH.
type world struct {
	*testing.T
	dir    string // of castra.toml
	home   string
	fakes  string // directory that the fakes run from
	base   string // base image
	events *recorder
	warm   string // Options.Warm
	state  string // Options.StateDir
}

// newWorld makes a project with the given [[vms]] tables. When the test ends,
// no fake may run any more and no goroutine be left.
func newWorld(t *testing.T, lifecycle string, vms ...string) *world {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	w := &world{T: t, dir: filepath.Join(root, "project"), home: filepath.Join(root, "home"), fakes: qemutest.Install(t), events: &recorder{}, warm: warmOff}
	t.Cleanup(func() { assert.Empty(t, qemutest.Running(t, w.fakes), "a QEMU was left running") })
	t.Setenv("PATH", w.fakes+string(os.PathListSeparator)+os.Getenv("PATH"))
	w.personality("")
	t.Setenv(envFakeImg, "")
	require.NoError(t, os.Mkdir(w.dir, 0o700))
	w.base = filepath.Join(w.dir, "base.qcow2")
	qemutest.WriteImage(t, w.base, 1<<20)
	w.configure(lifecycle, vms...)
	return w
}

// personality is that of the fakes started from now on.
func (w *world) personality(p string) { w.Setenv(envFakeQEMU, p) }

// configure writes castra.toml.
func (w *world) configure(lifecycle string, vms ...string) {
	w.Helper()
	w.write("castra.toml", "version = \"0.2\"\n[project]\nname = \"scratch\"\n[lifecycle]\n"+lifecycle+"\n"+strings.Join(vms, "\n"))
}

// vm is one [[vms]] table: a small VM of that role, with more lines.
func vm(role string, lines ...string) string {
	return fmt.Sprintf("[[vms]]\nname = %q\nbase_image = \"base.qcow2\"\ncpus = 1\nmemory = \"64 MiB\"\n%s\n", role, strings.Join(lines, "\n"))
}

// write writes a file of the project and gives its path.
func (w *world) write(name, text string) string {
	w.Helper()
	path := filepath.Join(w.dir, name)
	require.NoError(w, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(w, os.WriteFile(path, []byte(text), 0o700))
	return path
}

// options start VMs cold: warm_test.go is about the others.
func (w *world) options() Options {
	return Options{Dir: w.dir, Home: w.home, Accelerator: "tcg", Warm: w.warm, StateDir: w.state}
}

// open reads castra.toml afresh, as each command does.
func (w *world) open() *Project {
	w.Helper()
	return w.openWith(w.options())
}

func (w *world) openWith(o Options) *Project {
	w.Helper()
	p, err := Open(o)
	require.NoError(w, err)
	p.Reporter = w.events
	return p
}

// up and down must succeed.
func (w *world) up(names ...string) {
	w.Helper()
	require.NoError(w, w.open().Up(w.Context(), UpOptions{VMs: names}))
}

func (w *world) down() {
	w.Helper()
	require.NoError(w, w.open().Down(w.Context()))
}

// status is that of one VM.
func (w *world) status(name string) VMStatus {
	w.Helper()
	s, err := w.open().Status(w.Context())
	require.NoError(w, err)
	for _, vm := range s.VMs {
		if vm.Name == name {
			return vm
		}
	}
	require.Fail(w, "status does not name "+name)
	return VMStatus{}
}

// states are the states of all VMs in the order of status: "web-0 running".
func (w *world) states() []string {
	w.Helper()
	s, err := w.open().Status(w.Context())
	require.NoError(w, err)
	var states []string
	for _, vm := range s.VMs {
		states = append(states, vm.Name+" "+vm.State)
	}
	return states
}

func (w *world) layout() workspace.Layout { return w.open().layout() }

// overlay is where the VM's overlay is when castra.toml names none.
func (w *world) overlay(name string) string { return w.layout().Overlay(w.open().id, name) }

func (w *world) running() []int {
	w.Helper()
	return qemutest.Running(w, w.fakes)
}

// session is what is on record.
func (w *world) session() *workspace.Session {
	w.Helper()
	ws, err := workspace.Open(w.layout().Root)
	require.NoError(w, err)
	s, err := ws.LoadSession()
	require.NoError(w, err)
	return s
}

// cleanSlate: nothing runs, and the workspace holds cache and no more.
func (w *world) cleanSlate() {
	w.Helper()
	require.Empty(w, w.running(), "processes")
	l := w.layout()
	if _, err := os.Stat(l.Root); os.IsNotExist(err) {
		return
	}
	for _, path := range tree(w, l.Root) {
		top, _, _ := strings.Cut(path, "/")
		require.Contains(w, []string{".castra-workspace", "lock", "logs", "images", "metadata", "overlays"}, top)
		require.False(w, strings.HasPrefix(path, "overlays/"), "%s is left", path)
	}
	require.Empty(w, w.session().VMs, "records")
}

// tree lists all below dir, sorted.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var paths []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			rel, _ := filepath.Rel(dir, path)
			paths = append(paths, rel)
		}
		return err
	}))
	return paths
}

// snapshot is what dir holds, down to times and contents. It tells whether
// anything has been written there.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, path := range tree(t, dir) {
		st, err := os.Lstat(filepath.Join(dir, path))
		require.NoError(t, err)
		fmt.Fprintf(&b, "%s %s %d %s\n", path, st.Mode(), st.Size(), st.ModTime())
		if st.Mode().IsRegular() {
			data, err := os.ReadFile(filepath.Join(dir, path))
			require.NoError(t, err)
			fmt.Fprintf(&b, "%q\n", data)
		}
	}
	return b.String()
}

// recorder hears all events.
type recorder struct {
	mu      sync.Mutex
	records []event.Record
	hear    func(event.Event) // called for each; may be nil
}

func (r *recorder) Report(rec event.Record) {
	r.mu.Lock()
	r.records = append(r.records, rec)
	hear := r.hear
	r.mu.Unlock()
	if hear != nil {
		hear(rec.Event)
	}
}

// on calls f for each event from now on.
func (r *recorder) on(f func(event.Event)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hear = f
}

func (r *recorder) all() []event.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = nil
}

// of lists the events about a VM, but for word of waiting, which comes by the
// clock; "" is those about none.
func (r *recorder) of(vm string) []event.Event {
	var events []event.Event
	for _, rec := range r.all() {
		if _, waiting := rec.Event.(event.Waiting); rec.Event.Subject() == vm && !waiting {
			events = append(events, rec.Event)
		}
	}
	return events
}

// story is the kinds of the events about a VM, in their order, with what
// tells them apart.
func (r *recorder) story(vm string) []string {
	var kinds []string
	for _, e := range r.of(vm) {
		kind := string(e.Kind())
		switch e := e.(type) {
		case event.Message:
			continue
		case event.CooperativeAttempted:
			kind += " " + e.Channel
		case event.Escalated:
			kind += " " + e.Signal
		case event.Stopped:
			kind += " " + e.Outcome
		case event.OverlayDiscarded:
			kind += " " + e.Reason
		case event.BootstrapPlanned:
			kind += " " + e.Action + ": " + e.Reason
		case event.BootstrapCompleted:
			kind += " " + e.Outcome
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

// messages are the texts of all messages and summaries.
func (r *recorder) messages() string {
	var b strings.Builder
	for _, rec := range r.all() {
		switch e := rec.Event.(type) {
		case event.Message:
			fmt.Fprintf(&b, "%s: %s (%s)\n", e.Level, e.Text, e.Hint)
		case event.Summary:
			fmt.Fprintln(&b, e.Text)
		}
	}
	return b.String()
}

// cancelled is a context that f may end, and that ends with the test.
func (w *world) cancellable() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(w.Context())
	w.Cleanup(cancel)
	return ctx, cancel
}
