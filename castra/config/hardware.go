package config

import (
	"fmt"
)

var (
	cpuPattern     = lazily(`^[A-Za-z0-9][A-Za-z0-9._,+=-]{0,63}$`)
	machinePattern = lazily(`^[A-Za-z0-9][A-Za-z0-9._+=-]{0,63}$`) // properties would be Castra's to set
)

// hardware reads the keys for those who need another machine than the default.
func hardware(t *table, vm *VM) {
	vm.Network = t.oneOf("network", "user", "user", "isolated")
	if s, ok := t.str("machine"); ok {
		if vm.Machine = s; s != "" && !machinePattern().MatchString(s) {
			t.fault("machine", fmt.Sprintf("%q is no name of a machine", shorten(s)), `write a name that QEMU lists with -machine help, such as "q35"`)
		}
	}
	if n, number := t.m["cpu"].(int64); number {
		t.value("cpu")
		t.fault("cpu", fmt.Sprintf("it must be the name of a model, and this is the integer %d", n), "write cpus for their number")
	} else if s, ok := t.str("cpu"); ok {
		if vm.CPU = s; s != "" && !cpuPattern().MatchString(s) {
			t.fault("cpu", fmt.Sprintf("%q is no name of a CPU", shorten(s)), `write a name that QEMU lists with -cpu help, such as "max"`)
		}
	}
	vm.Arch = architecture(t)
	switch s, ok := t.str("firmware"); {
	case !ok:
	case s == "uefi" && t.has("kernel"):
		t.fault("firmware", "kernel is given too, and is booted without firmware", "keep one of the two")
	case s == "bios" && vm.Arch == "arm64":
		t.fault("firmware", "guests of aarch64 have no BIOS", `write "uefi", or remove it`)
	case s == "", s == "bios", s == "uefi":
		vm.Firmware = s
	default:
		t.fault("firmware", fmt.Sprintf("%q is none of bios, uefi", shorten(s)), "write one of them, or remove it")
	}
}

// architectures are the names that people use, and Go's.
var architectures = map[string]string{"": "", "x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

// architecture is that of the guest, as Go calls it; "" for that of the host.
func architecture(t *table) string {
	s, _ := t.str("arch")
	goarch, ok := architectures[s]
	if !ok {
		t.fault("arch", fmt.Sprintf("%q is none of x86_64, aarch64", shorten(s)), "write one of them, or remove it for that of this computer")
	}
	return goarch
}
