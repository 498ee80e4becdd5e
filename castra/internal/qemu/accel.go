package qemu

import (
	"errors"
	"fmt"
	"os"
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

// CPU is the model with the most features there are under this accelerator.
// "host" exists with acceleration only.
func (a Accelerator) CPU() string {
	if a.Emulated() {
		return "max"
	}
	return "host"
}

// KVMDevice is where Linux offers hardware acceleration.
const KVMDevice = "/dev/kvm"

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

// ChooseAccelerator opens the device rather than asking whether it is there: a
// device that cannot be opened is of no use. Want is "" for the best there is,
// or kvm, hvf or tcg, which then must work. On Linux device is KVMDevice, and
// a fake in tests; on macOS hvf is asked of the kernel.
func ChooseAccelerator(want, goos, device string) (Accelerator, error) {
	hardware, probe := Hardware(goos), func() error { return openDevice(device) }
	if goos == "darwin" {
		probe = probeHVF
	}
	switch want {
	case "tcg":
		return Accelerator{"tcg", "asked for"}, nil
	case "", hardware:
	case "kvm", "hvf":
		return Accelerator{}, &AcceleratorError{want, fmt.Errorf("not on %s", goos)}
	default:
		return Accelerator{}, &AcceleratorError{want, errors.New("unknown; known: kvm, hvf, tcg")}
	}
	err := probe()
	switch {
	case err == nil:
		return Accelerator{Name: hardware}, nil
	case want == hardware:
		return Accelerator{}, &AcceleratorError{hardware, err}
	default:
		return Accelerator{"tcg", err.Error()}, nil
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
