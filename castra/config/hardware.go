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
	switch s, ok := t.str("firmware"); {
	case !ok:
	case s == "uefi":
		t.fault("firmware", "this version of Castra boots by BIOS only", `write "bios", or remove it`)
	case s == "", s == "bios":
		vm.Firmware = s
	default:
		t.fault("firmware", fmt.Sprintf("%q is none of bios, uefi", shorten(s)), `write "bios", or remove it`)
	}
}
