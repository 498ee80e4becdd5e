package castra

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
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

			_, err = w.open().Status(t.Context())
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

// A record of a later Castra is not written over.
func TestNewerSession(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	path := w.layout().Session()
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	newer := bytes.Replace(good, []byte(`"schema_version": 1`), []byte(`"schema_version": 99`), 1)
	require.NotEqual(t, good, newer)
	require.NoError(t, os.WriteFile(path, newer, 0o600))
	for name, verb := range map[string]func() error{
		"up":   func() error { return w.open().Up(t.Context(), UpOptions{}) },
		"down": func() error { return w.open().Down(t.Context()) },
	} {
		err := verb()
		require.ErrorContains(t, err, "newer", name)
		require.Contains(t, hint(err), "the Castra that wrote it", name)
	}
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, newer, kept)
	require.NoError(t, os.WriteFile(path, good, 0o600))
	w.down()
	w.cleanSlate()
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

// The pidfile may be lost under a living VM: its monitor tells who it is.
func TestPidfileRemoved(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	pid := w.status("web-0").PID
	require.NoError(t, os.Remove(w.layout().Pidfile("web-0")))
	s := w.status("web-0")
	require.Equal(t, "running", s.State)
	require.Equal(t, pid, s.PID)
	require.Contains(t, s.Problem, "pidfile is gone")
	w.up() // and no second one is started
	require.Equal(t, []int{pid}, w.running())
	w.events.forget()
	w.down()
	require.Equal(t, []string{
		"vm.shutdown.requested", "vm.cooperative.attempted qmp", "vm.cooperative.succeeded",
		"vm.stopped graceful", "vm.overlay.discarded shutdown",
	}, w.events.story("web-0"))
	w.cleanSlate()
}

func TestMonitorRemoved(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	require.NoError(t, os.Remove(w.layout().Monitor("web-0")))
	require.Equal(t, "not responding", w.status("web-0").State)
	w.events.forget()
	w.down()
	require.Equal(t, []string{
		"vm.shutdown.requested", "vm.cooperative.attempted unavailable", "vm.escalated SIGTERM",
		"vm.stopped terminated", "vm.overlay.discarded shutdown",
	}, w.events.story("web-0"))
	w.cleanSlate()
}

// A file in the monitor's place is not Castra's to remove. QEMU itself unlinks
// that path when it ends in order, so the VM is one that must be killed.
func TestMonitorReplaced(t *testing.T) {
	w := newWorld(t, hasty, vm("web"))
	w.personality("ignore-powerdown,ignore-term")
	w.up()
	monitor := w.layout().Monitor("web-0")
	require.NoError(t, os.Remove(monitor))
	require.NoError(t, os.WriteFile(monitor, []byte("mine"), 0o600))
	err := w.open().Down(t.Context())
	require.ErrorContains(t, err, monitor+" is not a socket")
	require.Empty(t, w.running())
	data, err := os.ReadFile(monitor)
	require.NoError(t, err)
	require.Equal(t, "mine", string(data))
	require.Equal(t, []string{"web-0"}, w.session().Names())
	require.Error(t, w.open().Up(t.Context(), UpOptions{}), "it is in the way")
	require.NoError(t, os.Remove(monitor))
	w.down()
	w.cleanSlate()
}

// B6: a foreign server on the socket's path is not believed, and not harmed.
func TestForeignMonitor(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	l := w.layout()
	require.NoError(t, os.Remove(l.Monitor("web-0")))
	t.Chdir(l.Root)
	ln, err := net.Listen("unix", l.MonitorName("web-0"))
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 mail.example ESMTP\r\n"))
			conn.Close()
		}
	}()
	s := w.status("web-0")
	require.Equal(t, "not responding", s.State)
	require.Contains(t, s.Problem, "does not speak QMP")
	w.down()
	w.cleanSlate()
}

// innocent is a process of this test that has nothing to do with any VM.
func innocent(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		select {
		case <-ended:
			t.Error("an innocent process was ended")
		default:
		}
		_ = cmd.Process.Kill()
		<-ended
	})
	return cmd
}

// B4, B5: what a pidfile says is never believed.
func TestStalePidfiles(t *testing.T) {
	bystander := strconv.Itoa(innocent(t).Process.Pid)
	for name, content := range map[string]string{
		"living bystander": bystander, "group": "-1", "all": "0", "init": "1", "huge": "99999999999999999999",
		"text": "web", "NUL": "\x00\x00", "empty": "", "newlines": "\n\n" + bystander + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			w.up()
			w.down()
			pidfile := w.layout().Pidfile("web-0")
			put := func() { require.NoError(t, os.WriteFile(pidfile, []byte(content), 0o600)) }
			put()
			require.Equal(t, "stopped", w.status("web-0").State)
			require.FileExists(t, pidfile, "status changes nothing")
			w.down()
			require.NoFileExists(t, pidfile)
			put()
			require.NoError(t, w.open().Clean(t.Context()))
			require.NoFileExists(t, pidfile)
			put()
			w.up()
			require.Equal(t, "running", w.status("web-0").State)
			w.down()
			w.cleanSlate()
		})
	}
}

// What is no regular file is no pidfile: nothing waits for it, follows it or
// removes it, and the error names it.
func TestOddPidfiles(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, path string){
		"FIFO":      func(t *testing.T, path string) { require.NoError(t, unix.Mkfifo(path, 0o600)) },
		"directory": func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
		"symlink": func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "victim")
			require.NoError(t, os.WriteFile(target, []byte("1"), 0o600))
			t.Cleanup(func() { require.FileExists(t, target) })
			require.NoError(t, os.Symlink(target, path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			w.up()
			w.down()
			pidfile := w.layout().Pidfile("web-0")
			make(t, pidfile)
			require.Equal(t, "stopped", w.status("web-0").State)
			for verb, run := range map[string]func() error{
				"up":    func() error { return w.open().Up(t.Context(), UpOptions{}) },
				"down":  func() error { return w.open().Down(t.Context()) },
				"clean": func() error { return w.open().Clean(t.Context()) },
			} {
				require.ErrorContains(t, run(), pidfile, verb)
				_, err := os.Lstat(pidfile)
				require.NoError(t, err, verb)
			}
			require.Empty(t, w.running())
			require.NoError(t, os.Remove(pidfile))
			w.up()
			w.down()
			w.cleanSlate()
		})
	}
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

func TestConfigChangedWhileRunning(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	pid := w.status("web-0").PID
	for lines, says := range map[string]string{
		"[[vms.port_forwards]]\nguest = 80":                   "port_forwards: ",
		"[vms.ssh]\nuser = \"admin\"":                         "ssh.user: runs with root, castra.toml says admin",
		"overlay = \"other.qcow2\"":                           "overlay: ",
		"kernel = \"base.qcow2\"\nappend = \"console=ttyS0\"": "append: runs with none, castra.toml says console=ttyS0",
	} {
		w.configure(patient, vm("web", lines))
		err := w.open().Up(t.Context(), UpOptions{})
		require.ErrorAs(t, err, new(*ChangedError), says)
		require.ErrorContains(t, err, says)
		require.Equal(t, exitConfig, exitStatus(err))
		require.NotEmpty(t, hint(err))
	}
	w.configure(patient, strings.Replace(vm("web"), "cpus = 1", "cpus = 4", 1))
	err := w.open().Up(t.Context(), UpOptions{})
	require.ErrorContains(t, err, "cpus: runs with 1, castra.toml says 4")
	require.Equal(t, []int{pid}, w.running(), "it is left alone")
	w.configure(patient, vm("web"))
	w.up()
	require.Equal(t, []int{pid}, w.running())
	w.down()
	w.cleanSlate()
}

// A change of one VM keeps `up` from starting the others: all is checked
// before anything is done.
func TestChangeStartsNothing(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up("web")
	w.configure(patient, strings.Replace(vm("web"), "cpus = 1", "cpus = 4", 1), vm("db"))
	require.ErrorAs(t, w.open().Up(t.Context(), UpOptions{}), new(*ChangedError))
	require.Equal(t, []string{"web-0 running", "db-0 stopped"}, w.states())
	w.down()
	w.cleanSlate()
}

func TestVMRemovedFromConfig(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up()
	w.configure(patient, vm("web"))
	require.Equal(t, []string{"web-0 running", "db-0 running"}, w.states())
	require.Contains(t, w.status("db-0").Problem, "castra.toml does not name it any more")
	out, err := w.exec("db", "printf %s $CASTRA_FAKE_GUEST", "")
	require.NoError(t, err)
	require.Equal(t, "db-0", out)
	w.up()
	require.Len(t, w.running(), 2)
	w.down()
	w.cleanSlate()
}

// Failure bank 8: castra.toml edited into something unreadable, or removed,
// while VMs run.
func TestConfigBrokenWhileRunning(t *testing.T) {
	for name, damage := range map[string]func(w *world, file string){
		"syntax":     func(w *world, _ string) { w.write("castra.toml", "[[vms") },
		"validation": func(w *world, _ string) { w.configure(patient, vm("web", "memory_mb = 1")) },
		"renamed": func(w *world, _ string) {
			w.write("castra.toml", "version = \"0.2\"\n[project]\nname = \"other\"\nunknown = 1\n")
		},
		"removed": func(w *world, file string) { require.NoError(w, os.Remove(file)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, hastyPowerOff, vm("web"))
			w.personality("ignore-powerdown")
			w.up()
			file := filepath.Join(w.dir, "castra.toml")
			o := w.options()
			o.Config = file // a file that is gone cannot be searched for
			root := w.layout().Root
			damage(w, file)

			recorded := func() *Project {
				p, fault, err := OpenRecorded(o)
				require.NoError(t, err)
				require.Error(t, fault)
				require.Equal(t, root, p.StateRoot())
				p.Reporter = w.events
				return p
			}
			s, err := recorded().Status(t.Context())
			require.NoError(t, err)
			require.Len(t, s.VMs, 1)
			require.Equal(t, "running", s.VMs[0].State)
			ports, err := recorded().Ports(t.Context())
			require.NoError(t, err)
			require.Len(t, ports.Ports, 1)
			var out bytes.Buffer
			require.NoError(t, recorded().Exec(t.Context(), "web", Command{Line: "echo hello", Stdout: &out}))
			require.Equal(t, "hello\n", out.String())

			// What only castra.toml can tell is refused, with what is wrong with it.
			_, fault, _ := OpenRecorded(o)
			require.EqualError(t, recorded().Up(t.Context(), UpOptions{}), fault.Error())
			_, err = recorded().Plan(t.Context())
			require.EqualError(t, err, fault.Error())

			w.events.forget()
			require.NoError(t, recorded().Down(t.Context()))
			require.Contains(t, w.events.story("web-0"), "vm.cooperative.timed_out", "the waits on record hold")
			require.Empty(t, w.running())
			require.NoError(t, recorded().Clean(t.Context()))
		})
	}
}

// With nothing on record a broken castra.toml is just that.
func TestConfigBrokenBeforeUp(t *testing.T) {
	w := newWorld(t, patient)
	w.write("castra.toml", "[[vms")
	_, _, err := OpenRecorded(w.options())
	require.ErrorAs(t, err, new(config.Faults))
	require.Equal(t, exitConfig, exitStatus(err))
	o := w.options()
	o.Dir = t.TempDir()
	_, _, err = OpenRecorded(o)
	require.ErrorAs(t, err, new(*config.NotFoundError))
	require.Equal(t, exitNoInput, exitStatus(err))
}

func TestClean(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	require.NoError(t, w.open().Clean(t.Context()), "nothing was ever made")
	w.up()
	err := w.open().Clean(t.Context())
	var running *RunningError
	require.ErrorAs(t, err, &running)
	require.Equal(t, []string{"db-0", "web-0"}, running.VMs)
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
