package qemutest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// target is what differs between the fakes of two architectures.
type target struct {
	name     string // QEMU's
	goarch   string
	machines map[string]string // full name of each
	versions []string          // how the full names begin
	switches []string          // properties of machines that are on or off
	devices  []string
	cpus     []string
	class    string // ends the name of a CPU's class
}

// Properties and devices that castra has a use for, and the CPU models of QEMU 7.2 without their versions.
var targets = []target{
	{
		name: "x86_64", goarch: "amd64", class: "-x86_64-cpu",
		machines: map[string]string{"none": "none", "pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2", "microvm": "microvm"},
		versions: []string{"pc-i440fx-", "pc-q35-"},
		switches: []string{"fd-bootchk", "hpet", "i8042", "pit", "sata", "smbus", "smm", "vmport"},
		devices:  []string{"vmgenid"},
		cpus: []string{
			"Broadwell", "Cascadelake-Server", "Conroe", "Cooperlake", "Denverton", "Dhyana", "EPYC", "EPYC-Milan", "EPYC-Rome", "Haswell",
			"Icelake-Server", "IvyBridge", "Nehalem", "Opteron_G1", "Opteron_G5", "Penryn", "SandyBridge", "Skylake-Client", "Skylake-Server",
			"Snowridge", "Westmere", "athlon", "core2duo", "host", "kvm64", "max", "phenom", "qemu32", "qemu64",
		},
	},
	{
		name: "aarch64", goarch: "arm64", class: "-arm-cpu",
		machines: map[string]string{"none": "none", "virt": "virt-7.2"},
		versions: []string{"virt-"},
		switches: []string{"highmem", "its", "mte", "ras", "secure", "virtualization"},
		cpus: []string{
			"a64fx", "cortex-a15", "cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "host", "max", "neoverse-n1",
		},
	},
}

// commonSwitches and commonDevices are those of both.
var (
	commonSwitches = []string{"acpi", "dump-guest-core", "graphics", "mem-merge", "suppress-vmdesc", "usb"}
	commonDevices  = []string{
		"virtio-balloon-pci", "virtio-blk-pci", "virtio-net-pci", "virtio-rng-pci", "virtio-scsi-pci", "virtio-serial-pci",
	}
)

// this is the target that this process was called as.
func this() target {
	name := strings.TrimPrefix(filepath.Base(os.Args[0]), "qemu-system-")
	for _, t := range targets {
		if t.name == name {
			return t
		}
	}
	return targets[0]
}

// checkAccelerator says whether this QEMU was built with it. Whether the
// computer has it is left open, since tests say that it does.
func (t target) checkAccelerator(name string) error {
	known := name == "tcg" || t.goarch == runtime.GOARCH && (name == "kvm" && runtime.GOOS == "linux" || name == "hvf" && runtime.GOOS == "darwin")
	if !known {
		return fmt.Errorf("invalid accelerator %s", name)
	}
	return nil
}

// checkHardware looks at what can only be judged once the command line is known as a whole.
func (o *options) checkHardware() error {
	t := this()
	if o.shape.Machine == "" {
		return errors.New("No machine specified, and there is no default\nUse -machine help to list supported machines") //nolint:staticcheck // QEMU's words
	}
	emulated := o.accelerator == "" || o.accelerator == "tcg"
	if err := t.checkCPU(o.shape.CPU, emulated); err != nil {
		return err
	}
	if strings.HasPrefix(o.shape.Machine, "virt-") {
		return o.checkVirt(emulated)
	}
	return nil
}

func (t target) checkCPU(value string, emulated bool) error {
	model, properties, _ := strings.Cut(value, ",")
	switch {
	case value == "":
		return errors.New("-cpu option cannot be empty")
	case model == "host" && emulated && t.goarch == "amd64":
		return errors.New("CPU model 'host' requires KVM or HVF")
	case !slices.Contains(t.cpus, model), model == "host" && emulated:
		return fmt.Errorf("unable to find CPU model '%s'", model)
	case t.goarch == "amd64" || properties == "":
		return nil // the flags of x86 are too many to be known here
	}
	class := model + t.class
	for property := range strings.SplitSeq(properties, ",") {
		key, set, found := strings.Cut(property, "=")
		switch {
		case !found:
			return fmt.Errorf("Expected key=value format, found %s.", property) //nolint:staticcheck // QEMU's words
		case !hasProperty(model, key):
			return fmt.Errorf("can't apply global %s.%s: Property '%s.%s' not found", class, property, class, key)
		case set != "on" && set != "off":
			return fmt.Errorf("can't apply global %s.%s: Parameter '%s' expects 'on' or 'off'", class, property, key)
		}
	}
	return nil
}

// hasProperty is about arm64: the older models have neither pointer authentication nor SVE.
func hasProperty(model, key string) bool {
	if key == "pmu" || key == "aarch64" {
		return true
	}
	return (model == "max" || model == "host") && slices.Contains([]string{"pauth", "pauth-impdef", "sve", "sme", "lpa2"}, key)
}

// checkVirt is about the interrupt controller of arm64, of which the older version serves few CPUs.
func (o *options) checkVirt(emulated bool) error {
	version := "2"
	for _, option := range o.shape.Options {
		if set, ok := strings.CutPrefix(option, "gic-version="); ok {
			version = set
		}
	}
	smp := splitOption(o.shape.CPUs)
	cpus, _ := strconv.Atoi(smp[""] + smp["cpus"])
	const limit = 8
	switch {
	case !slices.Contains([]string{"2", "3", "host", "max"}, version):
		return errors.New("Invalid gic-version value\nValid values are 3, 2, host, max.") //nolint:staticcheck // QEMU's words
	case version == "host" && emulated:
		return errors.New("gic-version=host requires KVM")
	case version == "2" && cpus > limit:
		return fmt.Errorf("Number of SMP CPUs requested (%d) exceeds max CPUs supported by machine 'mach-virt' (%d)", cpus, limit) //nolint:staticcheck // QEMU's words
	}
	return nil
}
