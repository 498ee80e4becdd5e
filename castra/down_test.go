package castra

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/qemutest"
)

// kill ends the QEMU of a VM the way a crash does.
func (w *world) kill(name string) {
	w.Helper()
	pid := w.session().VMs[name].PID
	w.signal(pid, syscall.SIGKILL)
	require.Eventually(w, func() bool { return !contains(qemutest.Running(w, w.fakes), pid) }, patience, poll)
}

func (w *world) signal(pid int, s syscall.Signal) {
	w.Helper()
	require.Contains(w, w.running(), pid, "a fake of this test")
	process, err := os.FindProcess(pid)
	require.NoError(w, err)
	defer func() { _ = process.Release() }()
	require.NoError(w, process.Signal(s))
}

func contains(pids []int, pid int) bool {
	for _, p := range pids {
		if p == pid {
			return true
		}
	}
	return false
}

// replace puts a QEMU of another character in the place of the VM's: `up`
// waits until a guest answers, and some never do.
func (w *world) replace(name, personality string) {
	w.Helper()
	plan, err := w.open().Plan(w.Context(), UpOptions{})
	require.NoError(w, err)
	w.kill(name)
	for _, vm := range plan.VMs {
		if vm.Name != name {
			continue
		}
		require.NoError(w, os.Remove(w.layout().Monitor(name))) // the dead one's
		cmd := exec.Command(vm.Command[0], vm.Command[1:]...)
		cmd.Dir, cmd.Env = vm.Dir, append(os.Environ(), envFakeQEMU+"="+personality)
		startWithSerial(w, cmd, vm.SerialLog)
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(ended)
		}()
		w.Cleanup(func() {
			_ = cmd.Process.Kill() // nothing, where it has ended
			<-ended
		})
	}
	w.awaitMonitor(name)
}

// startWithSerial starts a QEMU as the shell does that is given the command of a plan.
func startWithSerial(t require.TestingT, cmd *exec.Cmd, log string) {
	serial, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	require.NoError(t, err)
	defer serial.Close()
	cmd.ExtraFiles = []*os.File{serial} // qemu.SerialFD
	require.NoError(t, cmd.Start())
}

// awaitMonitor returns when the VM's fake has come so far as to serve its
// monitor. Two clients may wait in the socket's queue; for a third there is
// room when one has been taken out of it.
func (w *world) awaitMonitor(name string) {
	w.Helper()
	dir, err := os.Open(w.layout().Root)
	require.NoError(w, err)
	defer dir.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), w.layout().MonitorName(name)) // short enough for a socket
	var clients []net.Conn
	require.Eventually(w, func() bool {
		if conn, err := net.Dial("unix", path); err == nil {
			clients = append(clients, conn)
		}
		return len(clients) == 3
	}, patience, poll)
	for _, conn := range clients {
		conn.Close()
	}
}

// The order of events in a shutdown is a contract.
func TestGracefulDown(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	w.events.forget()
	w.down()
	require.Equal(t, []string{
		"vm.shutdown.requested", "vm.cooperative.attempted qmp", "vm.cooperative.succeeded",
		"vm.stopped graceful", "vm.overlay.discarded shutdown",
	}, w.events.story("web-0"))
	events := w.events.of("web-0")
	require.True(t, events[3].(event.Stopped).Changed)
	require.Positive(t, events[4].(event.OverlayDiscarded).Bytes)
	require.Contains(t, w.events.messages(), "1 VM stopped, ")
	w.cleanSlate()
}

func TestStubbornDown(t *testing.T) {
	const requested, discarded = "vm.shutdown.requested", "vm.overlay.discarded shutdown"
	for _, c := range []struct {
		name, lifecycle, personality string
		story                        []string
	}{
		{"deaf to the power button", hastyPowerOff, "ignore-powerdown", []string{
			"vm.cooperative.attempted qmp", "vm.cooperative.timed_out", "vm.escalated SIGTERM", "vm.stopped terminated"}},
		{"deaf to SIGTERM too", hasty, "ignore-powerdown,ignore-term", []string{
			"vm.cooperative.attempted qmp", "vm.cooperative.timed_out", "vm.escalated SIGTERM", "vm.escalated SIGKILL", "vm.stopped killed"}},
		{"slow to end after its power button", hastyPowerOff, "slow-exit=30s,ignore-term", []string{
			"vm.cooperative.attempted qmp", "vm.cooperative.timed_out", "vm.escalated SIGTERM", "vm.escalated SIGKILL", "vm.stopped killed"}},
		{"no power button wanted", "graceful_shutdown_wait_secs = 0\nsigterm_wait_secs = 30\nsigkill_wait_secs = 30", "", []string{
			"vm.escalated SIGTERM", "vm.stopped terminated"}},
		{"no SIGTERM wanted", "graceful_shutdown_wait_secs = 1\nsigterm_wait_secs = 0\nsigkill_wait_secs = 30", "ignore-powerdown", []string{
			"vm.cooperative.attempted qmp", "vm.cooperative.timed_out", "vm.escalated SIGKILL", "vm.stopped killed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "slow to end after its power button" {
				c.lifecycle = hasty
			}
			w := newWorld(t, c.lifecycle, vm("web"))
			w.personality(c.personality)
			w.up()
			w.events.forget()
			w.down()
			want := append(append([]string{requested}, c.story...), discarded)
			require.Equal(t, want, w.events.story("web-0"))
			w.cleanSlate()
		})
	}
}

// QEMUs whose guest, or whose monitor, cannot be asked.
func TestDownOfTheUnresponsive(t *testing.T) {
	const requested, discarded = "vm.shutdown.requested", "vm.overlay.discarded shutdown"
	quit := []string{requested, "vm.cooperative.attempted qmp", "vm.cooperative.succeeded", "vm.stopped graceful", discarded}
	for _, c := range []struct {
		personality, lifecycle, state string
		story                         []string
		reason                        string
	}{
		{"paused", patient, "paused", quit, "the guest is paused"},
		{"io-error", patient, "io-error", quit, "the guest is io-error"},
		{"no-qmp-greeting", patient, "not responding", []string{
			requested, "vm.cooperative.attempted unavailable", "vm.escalated SIGTERM", "vm.stopped terminated", discarded}, "greeting"},
		{"hang", hasty, "not responding", []string{
			requested, "vm.cooperative.attempted unavailable", "vm.escalated SIGTERM", "vm.escalated SIGKILL", "vm.stopped killed", discarded}, "greeting"},
	} {
		t.Run(c.personality, func(t *testing.T) {
			w := newWorld(t, c.lifecycle, vm("web"))
			w.up()
			w.replace("web-0", c.personality)
			require.Equal(t, c.state, w.status("web-0").State)
			w.events.forget()
			w.down()
			require.Equal(t, c.story, w.events.story("web-0"))
			require.Contains(t, w.events.of("web-0")[1].(event.CooperativeAttempted).Reason, c.reason)
			w.cleanSlate()
		})
	}
}

// A VM that cannot run as configured is not taken for one that does.
func TestUpRefusesTheUnresponsive(t *testing.T) {
	for _, personality := range []string{"paused", "io-error"} {
		t.Run(personality, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			w.up()
			w.replace("web-0", personality)
			err := w.open().Up(t.Context(), UpOptions{})
			require.ErrorContains(t, err, "it runs (pid ")
			require.ErrorContains(t, err, personality)
			require.Contains(t, hint(err), "mage down")
			require.Len(t, w.running(), 1, "it is left alone")
			w.down()
			w.cleanSlate()
		})
	}
}

// A8, A9: many stubborn VMs go at once, each down a ladder of its own.
func TestDownOfAMixedSet(t *testing.T) {
	w := newWorld(t, hasty, vm("kind"), vm("deaf"), vm("mule"))
	w.personality("deaf-0:ignore-powerdown,mule-0:ignore-powerdown,mule-0:ignore-term")
	w.up()
	w.events.forget()
	w.down()
	outcomes := map[string]string{}
	for _, rec := range w.events.all() {
		if e, ok := rec.Event.(event.Stopped); ok {
			outcomes[e.VM] = e.Outcome
		}
	}
	require.Equal(t, "killed", outcomes["mule-0"])
	require.Len(t, outcomes, 3)
	w.cleanSlate()
}

// Another client on the monitor must not keep a VM alive.
func TestDownBesideABusyMonitor(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	l := w.layout()
	t.Chdir(l.Root) // the path may be longer than a socket's
	conn, err := net.Dial("unix", l.MonitorName("web-0"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1)) // greeted: the fake serves this client
	require.NoError(t, err)
	w.events.forget()
	w.down()
	require.Equal(t, []string{
		"vm.shutdown.requested", "vm.cooperative.attempted unavailable", "vm.escalated SIGTERM",
		"vm.stopped terminated", "vm.overlay.discarded shutdown",
	}, w.events.story("web-0"))
	w.cleanSlate()
}

// A9: a stopped process hears neither its monitor nor SIGTERM.
func TestDownOfAStoppedProcess(t *testing.T) {
	w := newWorld(t, hasty, vm("web"))
	w.up()
	w.signal(w.status("web-0").PID, syscall.SIGSTOP)
	require.Eventually(t, func() bool { return w.status("web-0").State == "not responding" }, patience, poll)
	w.events.forget()
	w.down()
	require.Equal(t, "vm.stopped killed", w.events.story("web-0")[4])
	w.cleanSlate()
}

// A ctx that ends in the middle of the ladder leaves what the next down ends.
func TestDownCancelled(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.personality("ignore-powerdown")
	w.up()
	ctx, cancel := w.cancellable()
	w.events.on(func(e event.Event) {
		if e.Kind() == "vm.cooperative.attempted" {
			cancel()
		}
	})
	require.ErrorIs(t, w.open().Down(ctx), ctx.Err())
	w.events.on(nil)
	require.Equal(t, "running", w.status("web-0").State)
	w.configure(hastyPowerOff, vm("web"))
	w.down()
	w.cleanSlate()
}

// With several faults each VM is named, and the others are down all the same.
func TestDownGoesOnPastAFault(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up()
	l := w.layout()
	require.NoError(t, os.Remove(l.Seed("web-0")))
	require.NoError(t, os.Mkdir(l.Seed("web-0"), 0o700))
	require.NoError(t, os.WriteFile(l.Seed("web-0")+"/mine", nil, 0o600))
	err := w.open().Down(t.Context())
	require.ErrorContains(t, err, "down web-0: clean up: ")
	require.Empty(t, w.running())
	require.Equal(t, []string{"web-0"}, w.session().Names(), "what is not gone stays on record")
	require.NoError(t, os.Remove(l.Seed("web-0")+"/mine"))
	w.down()
	w.cleanSlate()
}
