package castra

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/logs"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/report"
)

// diskPerVM is the least free space in bytes that a VM's overlay and logs may
// start with.
const diskPerVM = 256 << 20

// flashOfVirt is what the two flashes of QEMU's machine virt take of the host's memory, in bytes.
const flashOfVirt = 128 << 20

// PortError says: the host port of a forward cannot be listened on, most often
// since another process holds it.
type PortError struct {
	VM      string
	Forward Forward
	File    string
	Line    int
	Owner   string
	Err     error
}

func (e *PortError) Error() string {
	cause := "the port is held by " + orUnknown(e.Owner)
	if errno := syscall.Errno(0); errors.As(e.Err, &errno) && errno != syscall.EADDRINUSE {
		cause = errno.Error()
	}
	return fmt.Sprintf("VM %s: forward %s:%d: %s (%s:%d)", e.VM, e.Forward.HostIP, e.Forward.HostPort, cause, e.File, e.Line)
}
func (e *PortError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *PortError) Hint() string {
	switch {
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return "host_ip must be an address of this computer; 127.0.0.1 is the default"
	case errors.Is(e.Err, syscall.EACCES):
		return "choose a port above 1023, or leave out host to let the kernel choose one"
	case strings.HasPrefix(e.Owner, holderVM):
		return "CASTRA_WORKSPACE=" + e.Owner[strings.LastIndex(e.Owner, " ")+1:] + " mage down, or leave out host to let the kernel choose a free port"
	default:
		return "end that process, or leave out host to let the kernel choose a free port"
	}
}

// RoomError says: there is too little memory or disk for the VMs to start.
type RoomError struct {
	What       string
	Need, Have uint64 // bytes
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("%s: %s needed, %s free", e.What, report.Bytes(int64(e.Need)), report.Bytes(int64(e.Have)))
}

// Hint says what to do next.
func (e *RoomError) Hint() string {
	return "make room, start fewer VMs, or set CASTRA_FORCE=1 to go on all the same"
}

// preflight looks for what would make these VMs fail, before any is started.
// All faults are joined.
func (u *upRun) preflight(ctx context.Context, missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	var faults []error
	var memory uint64
	for _, vm := range missing {
		p := u.plans[vm]
		if err := p.spec.Check(); err != nil {
			faults = append(faults, &VMError{Op: "up", VM: vm, Phase: "launch", Err: err})
		}
		memory += uint64(p.MemoryMiB) << 20
		if p.firmware == "uefi" && p.arch == "arm64" {
			memory += flashOfVirt
		}
		for _, f := range p.Forwards {
			faults = append(faults, u.checkPort(ctx, vm, f))
		}
	}
	faults = append(faults, u.checkRoom(memory, uint64(len(missing))*diskPerVM)...)
	if err := u.workspaceKey(u.ws); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func (u *upRun) checkPort(ctx context.Context, vm string, f config.Forward) error {
	if f.HostPort == 0 {
		return nil
	}
	err := host.Bindable(ctx, f.Protocol, f.HostIP, f.HostPort)
	if err == nil {
		return nil
	}
	return u.portError(vm, f, err)
}

func (u *upRun) portError(vm string, f config.Forward, err error) error {
	return &PortError{vm, Forward{f.HostIP, f.HostPort, f.GuestPort, f.Protocol}, u.config.File, f.Line, owner(u.holders(), f.Protocol, f.HostIP, f.HostPort), err}
}

// refusedForward is how QEMU says that it could not listen on a host port.
const refusedForward = "Could not set up host forwarding rule"

// portTaken names who has taken a host port after it was found free, where it
// is that what QEMU ended of and the port is still held.
func (u *upRun) portTaken(ctx context.Context, p vmPlan, err error) error {
	said, _ := logs.Tail(u.ws.QEMULog(p.Name), tailLines)
	if !as[*qemu.ExitedError](err) || !strings.Contains(strings.Join(said, "\n"), refusedForward) {
		return err
	}
	for _, f := range p.Forwards {
		if f.HostPort != 0 && host.Bindable(ctx, f.Protocol, f.HostIP, f.HostPort) != nil {
			return u.portError(p.Name, f, err)
		}
	}
	return err
}

// checkRoom compares with what is free; with Force, too little is a warning.
// What cannot be told is not held against anyone.
func (u *upRun) checkRoom(memory, disk uint64) []error {
	var faults []error
	check := func(what string, need, have uint64, err error) {
		if err != nil || need <= have {
			return
		}
		room := &RoomError{what, need, have}
		if u.options.Force {
			u.warn("", room.Error(), "")
			return
		}
		faults = append(faults, room)
	}
	free, err := host.AvailableMemory()
	check("memory", memory, free, err)
	free, err = host.FreeDisk(u.ws.Root)
	check("disk of "+u.ws.Root, disk, free, err)
	return faults
}
