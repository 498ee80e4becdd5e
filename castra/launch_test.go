package castra

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemu"
)

// A3: one VM of three fails in each way, wherever it stands; the others are
// rolled back, and the error says where to look.
func TestOneOfThreeFailsSoak(t *testing.T) {
	for _, c := range []struct {
		personality string
		phase       string
		check       func(t *testing.T, err error)
		qemu        string // among QEMU's last lines
	}{
		{"exit-1", "launch", exited, "could not start, as told"},
		{"exit-late", "boot", exited, "ending late, as told"},
		{"crash", "boot", exited, ""},
		{"no-pidfile", "launch", exited, ""},
		{"port-taken", "launch", exited, "Could not set up host forwarding rule"},
		{"no-ssh", "boot", unreachable, ""},
		{"refuse-login", "boot", refused, ""},
		{"wrong-host-key", "boot", stranger, ""},
	} {
		for _, victim := range []string{"a-0", "b-0", "c-0"} {
			t.Run(c.personality+" at "+victim, func(t *testing.T) {
				const brief = "[vms.bootstrap]\nhandshake_timeout_secs = 1"
				lines := map[string]string{victim: ""}
				if c.personality == "no-ssh" || c.personality == "refuse-login" { // both are waited for
					lines[victim] = brief
				}
				w := newWorld(t, patient, vm("a", lines["a-0"]), vm("b", lines["b-0"]), vm("c", lines["c-0"]))
				if c.personality == "exit-late" || c.personality == "crash" { // not before it would be ready
					w.personality(fmt.Sprintf("%s:%s,%[1]s:slow-boot=20s", victim, c.personality))
				} else {
					w.personality(victim + ":" + c.personality)
				}
				err := w.open().Up(t.Context(), UpOptions{})
				var fault *VMError
				require.ErrorAs(t, err, &fault)
				require.Equal(t, victim, fault.VM)
				require.Equal(t, c.phase, fault.Phase[:len(c.phase)], fault.Phase)
				require.ErrorContains(t, err, "up "+victim+": "+c.phase)
				require.NotContains(t, err.Error(), "context canceled", "the others were told off, which is no fault of theirs")
				require.NotEmpty(t, hint(err))
				c.check(t, err)
				if c.qemu != "" {
					require.Contains(t, fmt.Sprint(fault.QEMU), c.qemu)
					require.Contains(t, w.events.messages(), c.qemu)
				}
				w.cleanSlate()
			})
		}
	}
}

func exited(t *testing.T, err error) {
	t.Helper()
	require.ErrorAs(t, err, new(*qemu.ExitedError))
	require.Equal(t, exitFailed, exitStatus(err))
}

func unreachable(t *testing.T, err error) {
	t.Helper()
	require.ErrorAs(t, err, new(*guest.UnreachableError))
	require.Equal(t, exitUnavailable, exitStatus(err))
}

func refused(t *testing.T, err error) {
	t.Helper()
	require.ErrorAs(t, err, new(*guest.LoginError))
	require.Equal(t, exitFailed, exitStatus(err))
}

func stranger(t *testing.T, err error) {
	t.Helper()
	require.ErrorAs(t, err, new(*guest.HostKeyError))
	require.Equal(t, exitFailed, exitStatus(err))
}

// Two that fail: at least one is named, and nothing is left.
func TestAllFail(t *testing.T) {
	w := newWorld(t, patient, vm("web", "count = 2"))
	w.personality("exit-1")
	err := w.open().Up(t.Context(), UpOptions{})
	require.ErrorAs(t, err, new(*qemu.ExitedError))
	w.cleanSlate()
}

// What ran before a failed up is none of its business.
func TestRollbackSparesWhatRan(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up("db")
	before := w.status("db-0")
	w.personality("exit-1")
	require.Error(t, w.open().Up(t.Context(), UpOptions{}))
	require.Equal(t, []string{"web-0 stopped", "db-0 running"}, w.states())
	require.Equal(t, before.PID, w.status("db-0").PID)
	w.down()
	w.cleanSlate()
}

// A guest that prints on its serial port what went wrong is quoted.
func TestSerialIsQuoted(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.personality("wrong-host-key")
	err := w.open().Up(t.Context(), UpOptions{})
	var fault *VMError
	require.ErrorAs(t, err, &fault)
	require.Contains(t, fmt.Sprint(fault.Serial), "web-0 login:")
	require.Contains(t, w.events.messages(), "the serial port said last:")
	w.cleanSlate()
}

// After a failure all is as before it; and the logs of the run before stay
// readable once.
func TestUpAfterFailure(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.personality("wrong-host-key")
	require.Error(t, w.open().Up(t.Context(), UpOptions{}))
	w.personality("")
	w.up()
	w.down()
	require.FileExists(t, w.layout().QEMULog("web-0")+".1")
	require.FileExists(t, w.layout().SerialLog("web-0")+".1")
	w.cleanSlate()
}

// Failure bank 104: VMs that fail together are all reported, each with its
// cause; one that was only broken off is not.
func TestTwoOfThreeFailTogether(t *testing.T) {
	w := newWorld(t, patient, vm("a"), vm("b"), vm("c"))
	w.personality("a-0:exit-1,b-0:exit-1,c-0:slow-boot=20s")
	err := w.open().Up(t.Context(), UpOptions{})
	var failed []string
	for _, one := range err.(interface{ Unwrap() []error }).Unwrap() {
		var e *VMError
		require.ErrorAs(t, one, &e)
		failed = append(failed, e.VM)
	}
	require.Contains(t, []string{"a-0", "b-0", "a-0 b-0"}, strings.Join(failed, " "), "c-0 had no fault of its own")
	w.cleanSlate()
}
