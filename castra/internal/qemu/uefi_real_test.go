package qemu

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemutest"
)

// realUEFI is QEMU for an architecture, with its firmware.
func realUEFI(t *testing.T, arch string) (string, UEFI) {
	t.Helper()
	program := "qemu-system-" + systems[arch].arch
	binary, err := exec.LookPath(program)
	if err != nil {
		require.Empty(t, os.Getenv("CASTRA_TEST_REQUIRE_QEMU"), program+" is required and not installed")
		t.Skip(program + " is not installed")
	}
	found, err := FindUEFI(t.Context(), binary, arch)
	if err != nil {
		require.ErrorAs(t, err, new(*MissingFirmwareError))
		require.Empty(t, os.Getenv("CASTRA_TEST_REQUIRE_QEMU"), "UEFI for %s is required and not installed", arch)
		t.Skip(err)
	}
	return binary, found
}

// uefiVM is a VM with an empty disk and variables of its own, whose firmware ends in its shell.
func uefiVM(t *testing.T, binary, arch string, template UEFI, change func(*Spec)) (Spec, Target) {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	s := defaultSpec()
	s.Binary, s.Dir, s.Name, s.CPUs, s.MemoryMiB, s.Arch, s.Machine, s.GenerationID = binary, dir, "vm", 1, 256, arch, Machine(arch), true
	s.Overlay, s.Seed, s.Pidfile, s.Monitor, s.SerialLog = in("o.qcow2"), "", in("vm.pid"), "vm.qmp", in("serial.log")
	s.UEFI = template
	s.UEFI.Vars = in("vars")
	require.NoError(t, MakeVars(template.Vars, s.UEFI.Vars))
	qemutest.WriteImage(t, s.Overlay, 1<<20)
	if change != nil {
		change(&s)
	}
	p, err := Start(t.Context(), s, in("qemu.log"))
	if err != nil {
		said, _ := os.ReadFile(in("qemu.log"))
		require.NoError(t, err, string(said))
	}
	target := Target{Name: s.Name, Pidfile: s.Pidfile, Monitor: in(s.Monitor), UUID: s.UUID}
	t.Cleanup(func() {
		_, err := Stop(context.WithoutCancel(t.Context()), target, Ladder{Kill: patience}, func(event.Event) {})
		require.NoError(t, err)
		<-p.Exited()
	})
	return s, target
}

// says waits until the VM has written text to its serial port.
func says(t *testing.T, s Spec, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		serial, _ := os.ReadFile(s.SerialLog)
		return bytes.Contains(serial, []byte(text))
	}, 4*patience, 20*time.Millisecond, text)
}

// The firmware of both architectures runs in QEMU as it is found and shaped here, keeps its variables in the VM's own copy, and goes on
// from a saved state with a fresh copy, into which QEMU writes the variables that were saved.
func TestRealUEFI(t *testing.T) {
	if testing.Short() {
		t.Skip("the firmware is emulated for seconds")
	}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			binary, template := realUEFI(t, arch)
			ignore := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
			before, err := os.ReadFile(template.Vars)
			require.NoError(t, err)

			first, target := uefiVM(t, binary, arch, template, func(s *Spec) { s.RAM.Shared = true })
			says(t, first, "startup.nsh") // which it then waits for some seconds
			to := t.TempDir()
			image := Image{Disk: filepath.Join(to, "disk"), RAM: filepath.Join(to, "ram"), State: filepath.Join(to, "state")}
			require.NoError(t, Save(t.Context(), target, first.Overlay, image, 0))
			says(t, first, "Shell>")
			kept, err := os.ReadFile(first.UEFI.Vars)
			require.NoError(t, err)
			require.False(t, bytes.Equal(before, kept), "the firmware has written its variables")

			second, target := uefiVM(t, binary, arch, template, func(s *Spec) {
				require.NoError(t, os.Remove(s.Overlay))
				require.NoError(t, os.Rename(image.Disk, s.Overlay))
				s.RAM.File, s.State = image.RAM, image.State
			})
			_, err = Restore(t.Context(), target, "")
			require.NoError(t, err)
			says(t, second, "Shell>")
			serial, err := os.ReadFile(second.SerialLog)
			require.NoError(t, err)
			require.NotContains(t, string(serial), "BdsDxe", "it did not begin anew")
			now, err := os.ReadFile(second.UEFI.Vars)
			require.NoError(t, err)
			require.True(t, bytes.Equal(kept, now), "the variables are those that were saved")
			st, err := os.Stat(image.State)
			require.NoError(t, err)
			t.Logf("%s: state %d KiB, variables take %d KiB of %d", arch, st.Size()>>10, usage(t, second.UEFI.Vars)>>10, len(now)>>10)

			after, err := os.ReadFile(template.Vars)
			require.NoError(t, err)
			require.True(t, bytes.Equal(before, after), "the template is not written to")
		})
	}
}

func usage(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	return host.DiskUsage(st)
}
