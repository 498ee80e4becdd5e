package qemu

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// Accelerator is how the guest's CPU is run.
type Accelerator struct {
	// Name is the value of -accel: kvm, hvf or tcg.
	Name string
	// Reason says why hardware acceleration is not used; empty with it.
	Reason string
}

// Emulated tells that the guest's instructions are translated: several times
// slower, and no isolation boundary in QEMU's own judgment.
func (a Accelerator) Emulated() bool { return a.Name == "tcg" }

// CPU is CPUFor of an amd64 guest.
func (a Accelerator) CPU() string { return a.CPUFor("amd64") }

// CPUFor is the model with the most features there are under this accelerator for guests of an architecture. "host" exists with
// acceleration only.
//
// Emulated pointer authentication is by the architecture's own cipher unless QEMU is told otherwise (since 6.0), and a guest's kernel
// signs every return address by it: an arm64 Linux takes 2.6 times as long to boot (7.2).
func (a Accelerator) CPUFor(arch string) string {
	switch {
	case !a.Emulated():
		return "host"
	case arch == "arm64":
		return "max,pauth-impdef=on"
	default:
		return "max"
	}
}

// KVMDevice is where Linux offers hardware acceleration.
const KVMDevice = "/dev/kvm"

// ForeignError says: the guest's instructions are not those of this computer.
type ForeignError struct{ Guest, Host string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("an %s guest on an %s computer is emulated", e.Guest, e.Host)
}

// Hint says what to do next.
func (e *ForeignError) Hint() string { return "give the VM an image for " + e.Host }

// AcceleratorError says: the accelerator that was asked for is not to be had.
type AcceleratorError struct {
	Name string
	Err  error
}

func (e *AcceleratorError) Error() string { return fmt.Sprintf("accelerator %s: %v", e.Name, e.Err) }
func (e *AcceleratorError) Unwrap() error { return e.Err }

// Enable says how this computer would have it; "" where that is not known.
func (e *AcceleratorError) Enable() string {
	switch {
	case errors.Is(e.Err, os.ErrPermission):
		return "add yourself to the group of " + KVMDevice + " (sudo usermod -aG kvm $USER) and log in again"
	case e.Name == "kvm" && errors.Is(e.Err, os.ErrNotExist):
		return "turn on virtualization in the firmware setup (in a VM: nested virtualization; in a container: --device " + KVMDevice +
			"), then sudo modprobe kvm_intel or kvm_amd"
	default:
		return ""
	}
}

// Hint says what to do next.
func (e *AcceleratorError) Hint() string {
	const settle = "unset CASTRA_ACCEL to take what there is"
	var foreign *ForeignError
	if errors.As(e.Err, &foreign) {
		return settle + ", or " + foreign.Hint()
	}
	if enable := e.Enable(); enable != "" {
		return enable + "; or " + settle
	}
	return settle
}

// Hardware is the name of the accelerator that is no emulation.
func Hardware(goos string) string {
	if goos == "darwin" {
		return "hvf"
	}
	return "kvm"
}

// ChooseAccelerator is ChooseAcceleratorFor a guest of this computer's architecture.
func ChooseAccelerator(want, goos, device string) (Accelerator, error) {
	return ChooseAcceleratorFor(want, goos, runtime.GOARCH, runtime.GOARCH, device)
}

// ChooseAcceleratorFor opens the device rather than asking whether it is there: a
// device that cannot be opened is of no use. Want is "" for the best there is,
// or kvm, hvf or tcg, which then must work. On Linux device is KVMDevice, and
// a fake in tests; on macOS hvf is asked of the kernel. A guest of another
// architecture than the host's can be emulated only. What cannot be had is an
// *AcceleratorError.
func ChooseAcceleratorFor(want, goos, hostArch, guestArch, device string) (Accelerator, error) {
	hardware := Hardware(goos)
	switch want {
	case "tcg":
		return Accelerator{"tcg", "asked for"}, nil
	case "", hardware:
	case "kvm", "hvf":
		return Accelerator{}, &AcceleratorError{want, fmt.Errorf("not on %s", goos)}
	default:
		return Accelerator{}, &AcceleratorError{want, errors.New("unknown; known: kvm, hvf, tcg")}
	}
	err := probeHardware(goos, hostArch, guestArch, device)
	switch {
	case err == nil:
		return Accelerator{Name: hardware}, nil
	case want == hardware:
		return Accelerator{}, &AcceleratorError{hardware, err}
	default:
		return Accelerator{"tcg", err.Error()}, nil
	}
}

// probeHardware says why hardware cannot run guests of an architecture; nil where it can.
func probeHardware(goos, hostArch, guestArch, device string) error {
	switch {
	case guestArch != hostArch:
		return &ForeignError{guestArch, hostArch}
	case goos == "darwin":
		return probeHVF()
	default:
		return openDevice(device)
	}
}

func openDevice(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeCharDevice == 0 {
		return fmt.Errorf("%s is not a device", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
