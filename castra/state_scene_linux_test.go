package castra

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/workspace"
)

// stage is where scenes are set: one project, as its first up left it.
type stage struct {
	*world
	vm       workspace.VM // on record
	command  commandPlan
	template string // copy of the workspace
	stranger *qemutest.Stranger
	made     string // what Castra wrote as overlay
	innocent *qemutest.Stranger
	scenes   int
}

// commandPlan is the command line of the VM.
type commandPlan struct {
	args []string
	dir  string
}

// newStage starts the project's VM once, for what is to be copied.
func newStage(w *world, stranger, innocent *qemutest.Stranger) *stage {
	w.Helper()
	s := &stage{world: w, stranger: stranger, innocent: innocent, template: filepath.Join(w.TempDir(), "template")}
	w.up()
	s.vm = w.session().VMs["web-0"]
	s.made = string(mustRead(w.T, s.vm.Overlay.Path))
	plan, err := w.open().Plan(w.Context(), UpOptions{})
	require.NoError(w, err)
	s.command = commandPlan{plan.VMs[0].Command, plan.VMs[0].Dir}
	require.NoError(w, os.CopyFS(s.template, regularFiles{os.DirFS(w.layout().Root)}))
	require.NoError(w, os.Remove(filepath.Join(s.template, "web-0.pid")))
	w.down()
	return s
}

// scene is one cell, set up.
type scene struct {
	*stage
	cell
	vmPID   int
	overlay string            // that the record or, without one, the workspace names
	kept    map[string]string // files by what they must hold on
}

func (s *stage) set(c cell) *scene {
	s.Helper()
	s.strike()
	s.scenes++
	l := s.layout()
	require.NoError(s, os.CopyFS(l.Root, os.DirFS(s.template)))
	require.NoError(s, os.Chmod(l.Root, 0o700))
	x := &scene{stage: s, cell: c, overlay: s.vm.Overlay.Path, kept: map[string]string{}}
	require.NoError(s, os.MkdirAll(filepath.Dir(x.overlay), 0o700))
	s.make(x.overlay, s.made)
	id := fileID(s.T, x.overlay)
	if c.alive() {
		x.start()
	}
	x.setPidfile(l.Pidfile("web-0"))
	x.setSocket(l.Monitor("web-0"))
	x.setOverlay()
	x.setRecords(id)
	return x
}

// strike ends what runs, and removes the workspace.
func (s *stage) strike() {
	s.Helper()
	s.stranger.Forget()
	for _, pid := range s.running() {
		s.signal(pid, unix.SIGKILL)
	}
	require.Eventually(s, func() bool { return len(s.running()) == 0 }, patience, poll)
	for _, path := range []string{s.layout().Root, s.vm.Overlay.Path, s.aside()} {
		require.NoError(s, os.RemoveAll(path))
	}
}

// aside is where an overlay is moved to, so that its number is not used again.
func (s *stage) aside() string { return filepath.Join(filepath.Dir(s.template), "aside.qcow2") }

// start starts the VM's QEMU, and waits until it answers.
func (x *scene) start() {
	x.Helper()
	cmd := exec.Command(x.command.args[0], x.command.args[1:]...)
	cmd.Dir = x.command.dir
	cmd.Env = append(os.Environ(), envFakeQEMU+"=slow-boot=1h") // a guest that writes nothing
	startWithSerial(x, cmd, os.DevNull)
	go func() { _ = cmd.Wait() }()
	x.vmPID = cmd.Process.Pid
	t := target(x.layout(), "web-0", workspace.VM{UUID: x.vm.UUID, PID: x.vmPID})
	require.Eventually(x, func() bool { return qemu.Inspect(x.Context(), t).Status == "running" }, patience, poll)
}

func (x *scene) setPidfile(path string) {
	if x.pidfile == "qemu" {
		return
	}
	_ = os.Remove(path)
	switch x.pidfile {
	case "empty":
		x.make(path, "")
	case "stale":
		x.make(path, strconv.Itoa(x.innocent.PID)+"\n")
	case "stranger":
		x.make(path, strconv.Itoa(x.stranger.PID)+"\n")
		x.stranger.Lock(path)
	case "hostile":
		if x.scenes%2 == 0 {
			require.NoError(x, unix.Mkfifo(path, 0o600))
			return
		}
		victim := filepath.Join(filepath.Dir(x.template), "victim")
		x.make(victim, "1")
		x.kept[victim] = "1"
		require.NoError(x, os.Symlink(victim, path))
	case "directory":
		require.NoError(x, os.MkdirAll(filepath.Join(path, "d"), 0o700)) // or the fake would remove it, as no QEMU does
	}
}

func (x *scene) setSocket(path string) {
	if x.socket == "ours" {
		return
	}
	_ = os.Remove(path)
	switch x.socket {
	case "stale":
		x.stranger.Serve(path+".gone", "silent", "")
		require.NoError(x, os.Rename(path+".gone", path))
		if x.pidfile == "stranger" { // who must not forget the pidfile
			require.NoError(x, os.Remove(path))
			require.NoError(x, unix.Mknod(path, unix.S_IFSOCK|0o600, 0))
			return
		}
		x.stranger.Forget()
	case "foreign": // half of them claim to be the VM
		x.stranger.Serve(path, "qmp", []string{x.vm.UUID, "00000000-0000-0000-0000-00000000beef"}[x.scenes%2])
	case "file":
		x.make(path, "mine")
		x.kept[path] = "mine"
	}
}

func (x *scene) setOverlay() {
	if x.overlayKind() == "ours" {
		return
	}
	require.NoError(x, os.Rename(x.overlay, x.aside()))
	image := string(mustRead(x.T, x.base))
	switch x.cell.overlay {
	case "replaced":
		x.make(x.overlay, image)
	case "held":
		x.make(x.overlay, image)
		x.kept[x.overlay] = image
		x.stranger.LockImage(x.overlay)
	case "users":
		x.make(x.overlay, "dear")
		x.kept[x.overlay] = "dear"
	}
}

// overlayKind is ours of the file on record, wherever that is.
func (x *scene) overlayKind() string {
	if x.cell.overlay == "placed" {
		return "ours"
	}
	return x.cell.overlay
}

func (x *scene) setRecords(id host.FileID) {
	l := x.layout()
	r := x.vm
	r.PID, r.Overlay.ID, r.BootID = max(x.vmPID, x.innocent.PID), id, host.BootID()
	if x.vmPID != 0 {
		r.PID = x.vmPID
	}
	if x.boot == "other" {
		r.BootID = "another-boot"
	}
	session := workspace.Session{Schema: 1, Root: l.Root, Waits: workspace.Waits{Terminate: patience, Kill: patience}}
	if x.record == "elsewhere" {
		session.Root = "/where/it/was"
		if l.Contains(r.Overlay.Path) {
			r.Overlay.Path = strings.Replace(r.Overlay.Path, l.Root, session.Root, 1)
		}
	}
	session.VMs = map[string]workspace.VM{"web-0": r}
	text, err := json.MarshalIndent(session, "", "  ")
	require.NoError(x, err)
	for path, whole := range map[string]string{l.Session(): string(text), l.Record(): string(mustRead(x.T, l.Record()))} {
		switch x.record {
		case "absent":
			require.NoError(x, os.RemoveAll(path))
		case "corrupt":
			x.make(path, whole[:len(whole)/2])
		case "newer":
			newer := strings.Replace(whole, `"schema_version": 1`, `"schema_version": 99`, 1)
			x.make(path, newer)
			x.kept[path] = newer
		default:
			x.make(path, whole)
		}
	}
}

// lock holds the workspace as another command does.
func (x *scene) lock() (unlock func()) {
	ws, err := workspace.Open(x.layout().Root)
	require.NoError(x, err)
	unlock, err = ws.Lock(x.Context(), "mage test", func(workspace.Holder) {})
	require.NoError(x, err)
	// Files of the moment are told from those that something is written to.
	past := time.Now().Add(-time.Hour)
	for _, path := range tree(x, ws.Root) {
		if st, err := os.Lstat(filepath.Join(ws.Root, path)); err == nil && st.Mode().IsRegular() {
			require.NoError(x, os.Chtimes(filepath.Join(ws.Root, path), past, past))
		}
	}
	return unlock
}

// save writes a session in the way that a command does.
func (w *world) save(session *workspace.Session) {
	w.Helper()
	ws, err := workspace.Open(w.layout().Root)
	require.NoError(w, err)
	require.NoError(w, ws.SaveSession(session))
}
