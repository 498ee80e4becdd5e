package qemu

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Spec is all that decides QEMU's command line for one VM. Paths are absolute
// but for Monitor, which is relative to Dir, where QEMU runs: a socket's path
// may have 107 bytes at most, and a workspace may lie deeper.
type Spec struct {
	Binary      string
	Dir         string
	Name        string
	UUID        string
	Arch        string // of the guest, in Go's spelling; "" is amd64
	Machine     string
	Accelerator Accelerator
	CPU         string // QEMU's model with its flags; "" takes that of the accelerator
	CPUs        int
	MemoryMiB   int
	Overlay     string
	Seed        string
	Forwards    []Forward
	// Restrict keeps the guest from reaching anything; forwards still work.
	Restrict bool
	Pidfile  string
	Monitor  string
	// SerialLog is where Start has written what comes out of descriptor SerialFD.
	SerialLog string
	// UEFI is the firmware; the zero value is the machine's own, a BIOS on amd64. Vars is the VM's own copy of the template.
	UEFI   UEFI
	Kernel string
	Initrd string
	Append string
	// Sandbox is set where QEMU can lock itself in (Linux, seccomp).
	Sandbox bool
	RAM     RAM
	// State is a file of Save's, which Restore has to load before the guest runs; "" boots.
	State string
	// GenerationID gives the guest a device that tells it, by a number new at every launch, that it has been restored. QEMU has none
	// for arm64, so there it is not looked at.
	GenerationID bool
}

// RAM says what the guest's memory is kept in. The zero value leaves that to QEMU.
type RAM struct {
	// Shared keeps it in a file without a name, from which Save can copy it.
	Shared bool
	// File is memory that Save wrote. It is mapped copy-on-write and never written to. So there must be no balloon: what a guest
	// gives back by one, QEMU (7.2) punches out of the file, mapped privately or not.
	File string
}

// Forward is one hostfwd rule. HostPort 0 lets the kernel choose.
type Forward struct {
	HostIP    string
	HostPort  int
	GuestPort int
	Protocol  string
}

// PathError says: QEMU cannot be told of a file.
type PathError struct{ Path string }

func (e *PathError) Error() string {
	return fmt.Sprintf("%q: its name is not UTF-8, and QEMU takes files by names in JSON, which is", e.Path)
}

// Hint says what to do next.
func (e *PathError) Hint() string {
	return "rename the directory, or keep the state elsewhere: CASTRA_HOME, or state_dir under [project]"
}

// Check finds what cannot be said in Args: a *PathError.
func (s Spec) Check() error {
	for _, path := range []string{s.Overlay, s.Seed, s.UEFI.Code, s.UEFI.Vars, s.RAM.File, s.State} {
		if !utf8.ValidString(path) {
			return &PathError{path}
		}
	}
	return nil
}

// Args is the command line without the program. It is pure: the same Spec
// gives the same line, and `plan` prints what `up` runs.
func (s Spec) Args() []string {
	args := []string{
		"-name", "guest=" + escape(s.Name),
		"-uuid", s.UUID,
		"-nodefaults", "-no-user-config",
		"-display", "none",
		"-machine", s.machine(),
		"-accel", s.Accelerator.Name,
		"-cpu", cmp.Or(s.CPU, s.Accelerator.CPUFor(s.arch())),
		"-smp", strconv.Itoa(s.CPUs),
		"-m", strconv.Itoa(s.MemoryMiB) + "M",
	}
	args = append(args, s.kernel()...)
	args = append(args, s.memory()...)
	args = append(args, s.flash()...)
	args = append(args, s.disks()...)
	args = append(args,
		"-netdev", s.netdev(),
		// No option ROM: nothing here boots from the network, and firmware
		// would spend time on it.
		"-device", object("driver", "virtio-net-pci", "netdev", "net0", "romfile", ""),
		"-device", object("driver", "virtio-rng-pci"),
	)
	if s.GenerationID && s.arch() == "amd64" {
		args = append(args, "-device", object("driver", "vmgenid", "guid", "auto"))
	}
	args = append(args,
		"-add-fd", fmt.Sprintf("fd=%d,set=%d", SerialFD, serialSet),
		"-chardev", fmt.Sprintf("file,id=serial0,append=on,path=/dev/fdset/%d", serialSet),
		"-serial", "chardev:serial0",
		"-chardev", "socket,id=monitor0,server=on,wait=off,path="+escape(s.Monitor),
		"-mon", "chardev=monitor0,mode=control",
		"-pidfile", s.Pidfile,
	)
	if s.Sandbox {
		args = append(args, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	}
	if s.State != "" {
		args = append(args, "-incoming", "defer")
	}
	return args
}

// Shape is what of the command line the guest can tell: no host paths, names or ports. Two Specs with the same Shape, the same files
// and the same QEMU make machines that a saved state fits alike.
func (s Spec) Shape() []string {
	s.Dir, s.Name, s.UUID, s.Forwards, s.Pidfile, s.Monitor, s.SerialLog = "", "", "", nil, "", "", ""
	s.RAM, s.State, s.Overlay = RAM{}, "", "overlay"
	for _, path := range []*string{&s.Seed, &s.Kernel, &s.Initrd, &s.UEFI.Code, &s.UEFI.Vars} {
		if *path != "" {
			*path = "given"
		}
	}
	return append([]string{s.arch()}, s.Args()...)
}

const (
	ramID = "ram0"
	// SerialFD is the descriptor of QEMU to which the guest's serial port is written, and serialSet the set that it is in, by which
	// options name it. A file named there itself would grow without end.
	SerialFD  = 3
	serialSet = 1
)

func (s Spec) arch() string { return cmp.Or(s.Arch, "amd64") }

func (s Spec) machine() string {
	m := s.Machine + s.interruptController()
	if s.UEFI != (UEFI{}) {
		m += ",pflash0=" + codeNode + ",pflash1=" + varsNode
	}
	if s.RAM != (RAM{}) {
		m += ",memory-backend=" + ramID
	}
	return m
}

// interruptController is that of arm64 guests. Under KVM it must be what the host's hardware offers. Elsewhere it is version 2, which
// needs the least of a guest, and which QEMU has for hvf from the start on (version 3: since 8.0); it serves 8 CPUs at most.
func (s Spec) interruptController() string {
	const version2CPUs = 8
	name, _, _ := strings.Cut(s.Machine, ",")
	name, _, _ = strings.Cut(name, "-") // "virt-7.2" is one too
	switch {
	case s.arch() != "arm64" || strings.Contains(s.Machine, "gic-version=") || name != virt:
		return ""
	case s.Accelerator.Name == "kvm":
		return ",gic-version=host"
	case s.CPUs > version2CPUs:
		return ",gic-version=3"
	default:
		return ",gic-version=2"
	}
}

func (s Spec) kernel() []string {
	if s.Kernel == "" {
		return nil
	}
	args := []string{"-kernel", s.Kernel}
	if s.Initrd != "" {
		args = append(args, "-initrd", s.Initrd)
	}
	if s.Append != "" {
		args = append(args, "-append", s.Append)
	}
	return args
}

// memory is the same block of RAM by whatever it is kept in: state saved with one is loaded with another.
func (s Spec) memory() []string {
	size := int64(s.MemoryMiB) << 20
	switch {
	case s.RAM.Shared:
		return []string{"-object", object("qom-type", "memory-backend-memfd", "id", ramID, "size", size, "share", true)}
	case s.RAM.File != "":
		return []string{"-object", object("qom-type", "memory-backend-file", "id", ramID, "size", size, "mem-path", s.RAM.File, "share", false)}
	default:
		return nil
	}
}

func (s Spec) disks() []string {
	args := []string{
		"-blockdev", fileNode("overlay", "qcow2", s.Overlay, false),
		// Index 0 is taken by the option ROM of -kernel.
		"-device", object("driver", "virtio-blk-pci", "drive", "overlay", "bootindex", 1),
	}
	if s.Seed != "" {
		args = append(args,
			"-blockdev", fileNode("seed", "raw", s.Seed, true),
			"-device", object("driver", "virtio-blk-pci", "drive", "seed"),
		)
	}
	return args
}

// fileNode is a -blockdev value. JSON, since a comma in a path would split
// the other form.
func fileNode(node, format, path string, readOnly bool) string {
	file := []any{"driver", "file", "filename", path}
	top := []any{"node-name", node, "driver", format, "read-only", readOnly, "file", json.RawMessage(object(file...))}
	if !readOnly {
		top = append(top, "discard", "unmap")
	}
	return object(top...)
}

func (s Spec) netdev() string {
	var b strings.Builder
	b.WriteString("user,id=net0")
	if s.Restrict {
		b.WriteString(",restrict=on")
	}
	for _, f := range s.Forwards {
		fmt.Fprintf(&b, ",hostfwd=%s:%s:%d-:%d", f.Protocol, f.HostIP, f.HostPort, f.GuestPort)
	}
	return b.String()
}

// String is the rule as people read it.
func (f Forward) String() string {
	host := net.JoinHostPort(f.HostIP, strconv.Itoa(f.HostPort))
	if f.HostPort == 0 {
		host = f.HostIP + ":(chosen at launch)"
	}
	return fmt.Sprintf("%s -> %d/%s", host, f.GuestPort, f.Protocol)
}

// escape doubles commas, as QEMU's option syntax wants them in a value.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// object is a JSON object with its keys in the order given, so that command
// lines compare.
func object(pairs ...any) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, v := range pairs[i : i+2] {
			out, err := json.Marshal(v)
			if err != nil {
				panic(fmt.Sprintf("qemu: a %T is no JSON value: %v", v, err))
			}
			b.Write(out)
			if j == 0 {
				b.WriteByte(':')
			}
		}
	}
	b.WriteByte('}')
	return b.String()
}
