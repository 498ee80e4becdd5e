package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/qmp"
)

func TestMain(m *testing.M) { qemutest.Main(m) }

const patience = 30 * time.Second

var patient = Ladder{Graceful: patience, Terminate: patience, Kill: patience}

// launched starts the VM "vm" by this program in a directory of its own, and
// waits until its monitor tells the status.
func launched(t *testing.T, binary, status string, change func(*Spec)) Target {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	s := defaultSpec()
	s.Binary, s.Dir, s.Name, s.CPUs, s.MemoryMiB = binary, dir, "vm", 1, 64
	s.Overlay, s.Seed, s.Pidfile, s.Monitor, s.SerialLog = in("o.qcow2"), "", in("vm.pid"), "vm.qmp", in("serial.log")
	qemutest.WriteImage(t, s.Overlay, 1<<20)
	if change != nil {
		change(&s)
	}
	p, err := Start(t.Context(), s, in("qemu.log"))
	require.NoError(t, err)
	target := Target{Name: s.Name, Pidfile: s.Pidfile, Monitor: filepath.Join(s.Dir, s.Monitor), UUID: s.UUID}
	t.Cleanup(func() {
		_, err := Stop(context.WithoutCancel(t.Context()), target, Ladder{Kill: patience}, func(event.Event) {})
		require.NoError(t, err)
		<-p.Exited()
	})
	require.Eventually(t, func() bool { return Inspect(t.Context(), target).Status == status }, patience, 10*time.Millisecond)
	return target
}

// stopped ends the VM and tells what was done to it.
func stopped(t *testing.T, target Target, l Ladder) (outcome string, told []string) {
	t.Helper()
	outcome, err := Stop(t.Context(), target, l, func(e event.Event) {
		switch e := e.(type) {
		case event.CooperativeAttempted:
			told = append(told, e.Channel+": "+e.Reason)
		case event.Escalated:
			told = append(told, e.Signal)
		}
	})
	require.NoError(t, err)
	require.False(t, Inspect(t.Context(), target).Alive())
	return outcome, told
}

// Failure bank: a guest that cannot heed the power button is not waited for.
func TestStop(t *testing.T) {
	fakes := qemutest.Install(t)
	for _, c := range []struct {
		personality, status string
		ladder              Ladder
		outcome             string
		told                []string
	}{
		{"", "running", patient, Graceful, []string{"qmp: ACPI power button"}},
		{"paused", "paused", patient, Graceful, []string{"qmp: the guest is paused"}},
		{"io-error", "io-error", patient, Graceful, []string{"qmp: the guest is io-error"}},
		{"shutdown", "shutdown", patient, Graceful, []string{"qmp: the guest is shutdown"}},
		{"ignore-powerdown", "running", Ladder{Graceful: time.Millisecond, Terminate: patience}, Terminated, []string{"qmp: ACPI power button", "SIGTERM"}},
		{"ignore-powerdown,ignore-term", "running", Ladder{Graceful: time.Millisecond, Terminate: time.Millisecond, Kill: patience}, Killed,
			[]string{"qmp: ACPI power button", "SIGTERM", "SIGKILL"}},
		{"", "running", Ladder{Kill: patience}, Killed, []string{"SIGKILL"}},
	} {
		t.Run(fmt.Sprintf("%s to %s", c.personality, c.outcome), func(t *testing.T) {
			t.Setenv("CASTRA_FAKE_QEMU", c.personality)
			target := launched(t, filepath.Join(fakes, "qemu-system-x86_64"), c.status, nil)
			if c.status == "running" { // a guest that has not booted does not see its power button
				require.Eventually(t, func() bool {
					serial, _ := os.ReadFile(filepath.Join(filepath.Dir(target.Pidfile), "serial.log"))
					return bytes.Contains(serial, []byte("login: "))
				}, patience, 10*time.Millisecond)
			}
			outcome, told := stopped(t, target, c.ladder)
			require.Equal(t, c.outcome, outcome)
			require.Equal(t, c.told, told)
		})
	}
}

func realQEMU(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		require.Empty(t, os.Getenv("CASTRA_TEST_REQUIRE_QEMU"), "QEMU is required and not installed")
		t.Skip("qemu-system-x86_64 is not installed")
	}
	return binary
}

func TestStopRealPaused(t *testing.T) {
	target := launched(t, realQEMU(t), "running", nil)
	mon, err := qmp.Dial(t.Context(), target.Monitor)
	require.NoError(t, err)
	require.NoError(t, mon.Execute(t.Context(), "stop", nil, nil))
	mon.Close()
	outcome, told := stopped(t, target, patient)
	require.Equal(t, Graceful, outcome)
	require.Equal(t, []string{"qmp: the guest is paused"}, told)
}

// writeAndHalt is the code of a boot sector: it writes to the second sector of
// its disk.
var writeAndHalt = []byte{
	0x31, 0xc0, // xor ax, ax
	0x8e, 0xc0, // mov es, ax
	0xbb, 0x00, 0x7c, // mov bx, 0x7c00
	0xb8, 0x01, 0x03, // mov ax, 0x0301: write one sector
	0xb9, 0x02, 0x00, // mov cx, 2
	0x30, 0xf6, // xor dh, dh
	0xcd, 0x13, // int 0x13, on the drive that the firmware left in dl
	0xf4, 0xeb, 0xfd, // hlt, for ever
}

// A real guest whose disk is full: its write fails with ENOSPC and QEMU stops it.
func TestStopRealFullDisk(t *testing.T) {
	qemu := realQEMU(t)
	target := launched(t, fullDisk(t, qemu), "io-error", nil)
	outcome, told := stopped(t, target, patient)
	require.Equal(t, Graceful, outcome)
	require.Equal(t, []string{"qmp: the guest is io-error"}, told)
}

// fullDisk is QEMU with a disk that boots and has no room, in place of the overlay.
func fullDisk(t *testing.T, qemu string) string {
	return withDisk(t, qemu, writeAndHalt, func(disk string) string {
		return fmt.Sprintf(`{"driver":"blkdebug","image":{"driver":"file","filename":%q},`+
			`"inject-error":[{"event":"write_aio","errno":28,"iotype":"write"}]}`, disk)
	})
}

// withDisk is QEMU with a disk that boots the code, in place of the overlay.
func withDisk(t *testing.T, qemu string, code []byte, file func(disk string) string) string {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	content := make([]byte, 1<<20)
	copy(content, code)
	copy(content[510:], "\x55\xaa")
	require.NoError(t, os.WriteFile(disk, content, 0o600))
	node := `{"node-name":"overlay","driver":"raw","file":` + file(disk) + `}`
	script := filepath.Join(dir, "qemu")
	require.NoError(t, os.WriteFile(script, fmt.Appendf(nil, `#!/bin/sh
for arg in "$@"; do
	shift
	case $arg in *'"node-name":"overlay"'*) arg='%s' ;; esac
	set -- "$@" "$arg"
done
exec %s "$@"
`, node, qemu), 0o700))
	return script
}

// QEMU takes a CPU model with flags, and forwards of a guest that is shut in.
func TestRealQEMUTakesTheSettings(t *testing.T) {
	target := launched(t, realQEMU(t), "running", func(s *Spec) { s.Restrict, s.CPU, s.Machine = true, "Nehalem,+aes,-x2apic", "pc" })
	forwards, err := Forwards(t.Context(), target)
	require.NoError(t, err)
	require.Len(t, forwards, 1)
	require.Equal(t, 22, forwards[0].GuestPort)
	require.Positive(t, forwards[0].HostPort)
}
