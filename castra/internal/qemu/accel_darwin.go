package qemu

import (
	"errors"

	"golang.org/x/sys/unix"
)

func probeHVF() error {
	supported, err := unix.SysctlUint32("kern.hv_support")
	if err != nil {
		return err
	}
	if supported == 0 {
		return errors.New("this Mac has no hypervisor support")
	}
	return nil
}
