package qemutest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// shape is what of the machine a saved state is only loaded into when it is
// the same. The fake is stricter than QEMU 7.2, which passes over another CPU
// model, and over CPUs and devices that the state has nothing about.
type shape struct {
	Machine string   // full name: "pc-q35-7.2"
	Options []string // of the machine, sorted, without its memory
	CPU     string
	CPUs    string
	Memory  int64 // bytes
	Devices []string
}

// plainShape is the machine of an empty command line; on arm64 there is none.
func plainShape() shape {
	if this().goarch == "arm64" {
		return shape{CPU: "cortex-a15", CPUs: "1", Memory: 128 << 20}
	}
	return shape{Machine: this().machines["pc"], CPU: "qemu64", CPUs: "1", Memory: 128 << 20}
}

// addHardware takes what shapes the machine.
func (o *options) addHardware(flag, value string) error {
	switch flag {
	case "machine", "M":
		return o.setMachine(value)
	case "sandbox":
		o.sandbox = strings.HasPrefix(value, "on")
	case "accel":
		return o.setAccelerator(value)
	case "cpu":
		o.shape.CPU = value
	case "smp":
		o.shape.CPUs = value
	case "m":
		return o.setMemory(value)
	case "device":
		return o.addDevice(value)
	case "object":
		return o.addObject(value)
	case "incoming":
		if value != "defer" {
			return fmt.Errorf("unknown migration protocol: %s", value)
		}
		o.incoming = true
	}
	return nil
}

var errMachine = errors.New("unsupported machine type\nUse -machine help to list supported machines")

func (o *options) setMachine(value string) error {
	fields, t := splitOption(value), this()
	name := fields[""] + fields["type"]
	full, known := t.machines[name]
	switch {
	case known:
	case slices.ContainsFunc(t.versions, func(p string) bool { return strings.HasPrefix(name, p) }):
		full = name
	default:
		return bare{errMachine}
	}
	o.shape.Machine, o.backend, o.shape.Options, o.flashNames = full, "", nil, [2]string{}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		set := fields[key]
		switch {
		case key == "" || key == "type" || key == "accel" || key == "kernel-irqchip":
		case key == "memory-backend":
			o.backend = set
		case key == "pflash0" || key == "pflash1":
			o.flashNames[key[len(key)-1]-'0'] = set
			o.shape.Options = append(o.shape.Options, key)
		case key == "gic-version" && t.goarch == "arm64":
			o.shape.Options = append(o.shape.Options, key+"="+set)
		case !slices.Contains(t.switches, key) && !slices.Contains(commonSwitches, key):
			return bare{fmt.Errorf("Property '%s-machine.%s' not found", full, key)} //nolint:staticcheck // QEMU's words
		case set != "on" && set != "off":
			return bare{fmt.Errorf("Parameter '%s' expects 'on' or 'off'", key)} //nolint:staticcheck // QEMU's words
		default:
			o.shape.Options = append(o.shape.Options, key+"="+set)
		}
	}
	return nil
}

// setAccelerator takes the first one: the others are for where it fails.
func (o *options) setAccelerator(value string) error {
	if o.accelerator != "" {
		return nil
	}
	o.accelerator = splitOption(value)[""]
	return this().checkAccelerator(o.accelerator)
}

// bare is an error that QEMU reports without the option it is about.
type bare struct{ error }

// setMemory reads -m, in MiB where it has no unit.
func (o *options) setMemory(value string) error {
	fields := splitOption(value)
	text := fields[""] + fields["size"]
	if text != "" && strings.Trim(text, "0123456789") == "" {
		text += "M"
	}
	n, err := parseSize(text)
	if err != nil {
		return errors.New("Parameter 'size' expects a non-negative number below 2^64") //nolint:staticcheck // QEMU's words
	}
	o.shape.Memory = int64(n)
	return nil
}

func (o *options) addDevice(value string) error {
	driver := splitOption(value)[""]
	if strings.HasPrefix(value, "{") {
		var device struct{ Driver string }
		if err := json.Unmarshal([]byte(value), &device); err != nil {
			return err
		}
		driver = device.Driver
	}
	if !slices.Contains(commonDevices, driver) && !slices.Contains(this().devices, driver) {
		return fmt.Errorf("'%s' is not a valid device model name", driver)
	}
	o.shape.Devices = append(o.shape.Devices, driver)
	return nil
}

// accept says, in QEMU's words, why a state of another shape is not loaded.
func (s shape) accept(saved shape) error {
	switch {
	case saved.Machine != s.Machine:
		return fmt.Errorf("Machine type received is '%s' and local is '%s'", saved.Machine, s.Machine) //nolint:staticcheck // QEMU's words
	case saved.Memory != s.Memory:
		return fmt.Errorf("Size mismatch: ram0: 0x%x != 0x%x: Invalid argument", saved.Memory, s.Memory) //nolint:staticcheck // QEMU's words
	case saved.CPU != s.CPU:
		return misfit("cpu")
	case saved.CPUs != s.CPUs:
		return misfit("cpu_common")
	case !slices.Equal(saved.Options, s.Options):
		return misfit(strings.Join(saved.Options, ","))
	case !slices.Equal(saved.Devices, s.Devices):
		return misfit(strings.Join(saved.Devices, ","))
	}
	return nil
}

func misfit(section string) error {
	return fmt.Errorf("Unknown savevm section or instance '%s' 0. Make sure that your current VM setup matches your saved VM setup, "+ //nolint:staticcheck // QEMU's words
		"including any hotplugged devices", section)
}

// cpuType is the name of the CPU's class, and what the guest sees of it.
func (s shape) cpuType() (name string, features any) {
	model, _, _ := strings.Cut(s.CPU, ",")
	name = model + this().class
	if this().goarch == "arm64" {
		return name, nil
	}
	word := uint32(0)
	for _, c := range s.CPU {
		word = word*31 + uint32(c)
	}
	return name, []map[string]any{{"cpuid-register": "EDX", "cpuid-input-eax": 1, "features": word}}
}
