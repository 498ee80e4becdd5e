package castra

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/workspace"
)

// B7: whatever became of the record, the VM can be stopped, and what is left
// of the record is kept to be looked at.
func TestDamagedSession(t *testing.T) {
	for name, damage := range map[string]func(good []byte) []byte{
		"empty":             func([]byte) []byte { return []byte{} },
		"cut short":         func(good []byte) []byte { return good[:len(good)/2] },
		"last byte missing": func(good []byte) []byte { return good[:len(good)-3] },
		"zeroes":            func(good []byte) []byte { return make([]byte, len(good)) },
		"not JSON":          func([]byte) []byte { return []byte("hello\n") },
		"another shape":     func([]byte) []byte { return []byte(`{"vms": ["web-0"]}`) },
		"filed wrongly":     func(good []byte) []byte { return bytes.Replace(good, []byte(`"web-0": {`), []byte(`"web-9": {`), 1) },
		"path for a name":   func(good []byte) []byte { return bytes.ReplaceAll(good, []byte(`"web-0"`), []byte(`"../web-0"`)) },
		"huge":              func([]byte) []byte { return bytes.Repeat([]byte(" "), 2<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			w.up()
			path := w.layout().Session()
			good, err := os.ReadFile(path)
			require.NoError(t, err)
			bad := damage(good)
			require.NoError(t, os.WriteFile(path, bad, 0o600))

			s, err := w.open().Status(t.Context())
			require.NoError(t, err)
			require.Contains(t, s.Problem, path)
			require.Equal(t, []string{"web-0 running"}, w.states(), "the pidfile tells")
			_, err = w.exec("web", "true", "")
			require.ErrorAs(t, err, new(*workspace.RecordError))
			require.Contains(t, hint(err), "mage down")

			err = w.open().Up(t.Context(), UpOptions{})
			require.ErrorContains(t, err, "its record is lost")
			require.Contains(t, hint(err), "mage down ends it")
			require.Len(t, w.running(), 1)

			w.down()
			w.cleanSlate()
			require.Contains(t, w.events.messages(), ".corrupt-1")
			aside, err := os.ReadFile(path + ".corrupt-1")
			require.NoError(t, err)
			require.Equal(t, bad, aside)
			w.up()
			w.down()
			w.cleanSlate()
		})
	}
}

// The record is data: no name in it leads out of the workspace.
func TestSessionCannotReachOut(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	w.down()
	victim := filepath.Join(filepath.Dir(w.layout().Root), "victim.pid")
	require.NoError(t, os.WriteFile(victim, []byte("1"), 0o600))
	thesis := w.write("thesis.qcow2", "dear")
	s, err := json.Marshal(map[string]any{"schema_version": 1, "vms": map[string]any{
		"../victim": map[string]any{"name": "../victim", "overlay": map[string]any{"path": thesis}},
	}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.layout().Session(), s, 0o600))
	_ = w.open().Down(t.Context())
	require.FileExists(t, victim)
	require.FileExists(t, thesis)
	_ = w.open().Clean(t.Context())
	require.FileExists(t, victim)
	require.FileExists(t, thesis)
}

// A4: a VM that crashed is told from one that was taken down, and what it
// left is reclaimed by the next command, whichever that is.
func TestCrashIsReclaimed(t *testing.T) {
	for verb, run := range map[string]func(w *world) error{
		"up":    func(w *world) error { return w.open().Up(w.Context(), UpOptions{}) },
		"down":  func(w *world) error { return w.open().Down(w.Context()) },
		"clean": func(w *world) error { return w.open().Clean(w.Context()) },
	} {
		t.Run(verb, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			w.up()
			w.kill("web-0")
			s := w.status("web-0")
			require.Equal(t, "crashed", s.State)
			require.Contains(t, s.Problem, w.layout().QEMULog("web-0"))
			require.FileExists(t, w.overlay("web-0"))
			w.events.forget()
			require.NoError(t, run(w))
			require.Contains(t, w.events.story("web-0"), "vm.overlay.discarded orphan")
			w.down()
			w.cleanSlate()
		})
	}
}

// A5: what was recorded before a reboot says nothing about what runs now.
func TestReboot(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	w.kill("web-0")
	ws, err := workspace.Open(w.layout().Root)
	require.NoError(t, err)
	s := w.session()
	r := s.VMs["web-0"]
	r.BootID, r.PID = "another-boot", innocent(t).Process.Pid
	s.VMs["web-0"] = r
	require.NoError(t, ws.SaveSession(s))
	require.NoError(t, os.WriteFile(ws.Pidfile("web-0"), []byte(strconv.Itoa(r.PID)), 0o600))
	require.Equal(t, "stopped", w.status("web-0").State)
	w.up()
	require.Contains(t, w.events.story("web-0"), "vm.overlay.discarded orphan")
	w.down()
	w.cleanSlate()
}

// A command that was killed after any of its steps: what it recorded and made
// until then is found and removed.
func TestKilledUpIsFinished(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	whole := w.session().VMs["web-0"]
	w.kill("web-0")
	l := w.layout()
	ws, err := workspace.Open(l.Root)
	require.NoError(t, err)
	for name, leave := range map[string]func(r *workspace.VM){
		"intent recorded":                       func(*workspace.VM) {},
		"overlay reserved and not yet recorded": func(r *workspace.VM) { w.make(r.Overlay.Path, "") },
		"overlay recorded": func(r *workspace.VM) {
			w.make(r.Overlay.Path, "")
			r.Overlay.ID = fileID(t, r.Overlay.Path)
		},
		"overlay filled and seed written": func(r *workspace.VM) {
			w.make(r.Overlay.Path, string(mustRead(t, w.base)))
			r.Overlay.ID = fileID(t, r.Overlay.Path)
			w.make(l.Seed("web-0"), "seed")
		},
	} {
		for _, stale := range []string{whole.Overlay.Path, l.Seed("web-0"), l.Pidfile("web-0"), l.Monitor("web-0")} {
			_ = os.Remove(stale)
		}
		r := whole
		r.PID, r.Overlay.ID, r.SSH.Port, r.Forwards = 0, host.FileID{}, 0, nil
		leave(&r)
		require.NoError(t, ws.SaveSession(&workspace.Session{VMs: map[string]workspace.VM{"web-0": r}}), name)
		w.down()
		w.cleanSlate()
	}
}

// make makes a file of the workspace.
func (w *world) make(path, text string) {
	w.Helper()
	require.NoError(w, os.WriteFile(path, []byte(text), 0o600))
}

func fileID(t *testing.T, path string) host.FileID {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	return host.IDOfInfo(st)
}

// An up that was killed between the launch and the first login is seen
// through by the next.
func TestUnreadyIsSeenThrough(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	pid := w.status("web-0").PID
	ws, err := workspace.Open(w.layout().Root)
	require.NoError(t, err)
	s := w.session()
	whole := s.VMs["web-0"]
	r := whole
	r.Ready, r.SSH.Port, r.Forwards = workspace.VM{}.Ready, 0, nil
	s.VMs["web-0"] = r
	require.NoError(t, ws.SaveSession(s))
	require.Equal(t, "booting", w.status("web-0").State)
	w.up()
	require.Equal(t, pid, w.status("web-0").PID)
	require.Equal(t, "running", w.status("web-0").State)
	now := w.session().VMs["web-0"]
	require.Equal(t, whole.SSH, now.SSH)
	require.Equal(t, whole.Forwards, now.Forwards)
	w.down()
	w.cleanSlate()
}
