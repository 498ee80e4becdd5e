package castra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/bootstrap"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/seed"
	"castra.example/castra/castra/internal/workspace"
)

// Exit statuses of the targets, as sysexits.h names them.
const (
	exitUsage       = 64
	exitConfig      = 65
	exitNoInput     = 66
	exitUnavailable = 69
	exitFailed      = 70
	exitCantCreate  = 73
	exitIO          = 74
	exitBusy        = 75
	exitPermission  = 77
)

// VMError is a failure of one VM.
type VMError struct {
	Op    string // the verb: up, down, exec
	VM    string
	Phase string // how far it got: overlay, launch, boot, bootstrap, …; may be empty
	Err   error
	// QEMU and Serial are the last lines of what QEMU and the guest printed,
	// where they bear on the failure.
	QEMU, Serial []string
	Next         string // what to do, besides what Err advises
}

// Error is safe to print: what the guest or QEMU said may be in it.
func (e *VMError) Error() string {
	where := e.Op + " " + e.VM
	if e.Phase != "" {
		where += ": " + e.Phase
	}
	return report.Sanitize(where + ": " + e.Err.Error())
}

func (e *VMError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *VMError) Hint() string {
	inner := hint(e.Err)
	if inner == "" || e.Next == "" {
		return inner + e.Next
	}
	return inner + "; " + e.Next
}

// ChangedError says: a VM runs with other settings than castra.toml now gives it.
type ChangedError struct {
	VM string
	// Differences are sentences such as "cpus: runs with 2, castra.toml says 4".
	Differences []string
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("VM %s runs with other settings: %s", e.VM, strings.Join(e.Differences, "; "))
}

// Hint says what to do next.
func (e *ChangedError) Hint() string { return "mage down, then mage up; or put the settings back" }

// UnknownVMError says: there is no VM of that name.
type UnknownVMError struct {
	VM    string
	Known []string
}

func (e *UnknownVMError) Error() string {
	return fmt.Sprintf("VM %q: no such VM; known: %s", e.VM, strings.Join(e.Known, ", "))
}

// Hint says what to do next.
func (e *UnknownVMError) Hint() string { return "mage status lists the VMs" }

// NotRunningError says: the VM is known and does not run.
type NotRunningError struct{ VM string }

func (e *NotRunningError) Error() string { return fmt.Sprintf("VM %s does not run", e.VM) }

// Hint says what to do next.
func (e *NotRunningError) Hint() string { return "mage up" }

// RunningError says: VMs run, and the verb does not work beside them.
type RunningError struct{ VMs []string }

func (e *RunningError) Error() string {
	return fmt.Sprintf("these VMs run: %s", strings.Join(e.VMs, ", "))
}

// Hint says what to do next.
func (e *RunningError) Hint() string { return "mage down first, or CASTRA_FORCE=1 to stop them" }

// usageError says: what was asked for makes no sense.
type usageError struct{ text, help string }

func (e *usageError) Error() string { return e.text }
func (e *usageError) Hint() string  { return e.help }

// Unfit tells that err is of this computer, which lacks what VMs need, and not
// of the project: QEMU is missing, or its firmware, or the accelerator asked for, or the small
// guest cannot be built here.
func Unfit(err error) bool {
	return as[*qemu.MissingToolError](err) || as[*qemu.AcceleratorError](err) || as[*image.HostError](err) || as[*qemu.MissingFirmwareError](err)
}

// hint finds the advice of the outermost error that has any.
func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// exitError is what a target returns: mage prints it and asks it for the exit
// status.
type exitError struct {
	err    error
	status int
}

// exit dresses the error of a verb for mage; nil stays nil.
func exit(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{err, exitStatus(err)}
}

// Error is what mage prints as it is, on a terminal too.
func (e *exitError) Error() string {
	return report.Sanitize(strings.TrimRight(explain(e.err), "\n"))
}

func (e *exitError) Unwrap() error   { return e.err }
func (e *exitError) ExitStatus() int { return e.status }

// explain puts each of several joined errors on lines of its own, with its
// advice.
func explain(err error) string {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var b strings.Builder
		for _, one := range many.Unwrap() {
			b.WriteString(strings.TrimRight(explain(one), "\n") + "\n")
		}
		return b.String()
	}
	s := err.Error()
	if h := advice(err); h != "" {
		s += "\n  next: " + h
	}
	return s
}

// advice is an error's own or, where it has none, what helps with the system's
// error below it. The failure of a command that the user gave needs none.
func advice(err error) string {
	h := hint(err)
	switch {
	case h != "" || as[*guest.ExitError](err) || as[*CommandError](err):
		return h
	case errors.Is(err, fs.ErrPermission):
		return "check who owns it and its mode; Castra runs as the user who runs mage, and needs no root"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room on that file system, then run the command again; mage prune gives back what Castra can make again"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "mage status tells what is left; the command can be run again"
	default:
		return "mage status and mage logs tell more; the command can be run again"
	}
}

// exitStatus is decided by the outermost error that says what kind of failure
// it is.
func exitStatus(err error) int {
	var exited *guest.ExitError
	var command *CommandError
	switch {
	case as[*bootstrap.StepError](err):
		return exitFailed
	case errors.As(err, &exited):
		return exited.Status
	case errors.As(err, &command):
		return command.Status()
	case as[*usageError](err), as[*workspace.AmbiguousWorkspaceError](err):
		return exitUsage
	case as[config.Faults](err), as[*config.Error](err), as[*ChangedError](err), as[*image.FormatError](err), as[*image.MismatchError](err),
		as[*image.UnknownError](err), as[*image.SidecarError](err), as[*image.UnverifiedError](err), as[*DiskSizeError](err), as[*qemu.SizeError](err), as[*seed.ExtraError](err):
		return exitConfig
	case as[*config.NotFoundError](err), as[*UnknownVMError](err), as[*NotRunningError](err), as[*NoForwardError](err),
		as[*workspace.UnknownWorkspaceError](err), as[*RecordedError](err):
		return exitNoInput
	case as[*qemu.MissingToolError](err), as[*qemu.AcceleratorError](err), as[*guest.UnreachableError](err), as[*guest.ImpostorError](err), as[*image.HostError](err), as[*UnfitHostError](err),
		as[*qemu.MissingFirmwareError](err), as[*image.FetchError](err):
		return exitUnavailable
	case as[*workspace.BusyError](err), as[*workspace.TakenDownError](err), as[*RunningError](err), as[*image.BusyError](err):
		return exitBusy
	case errors.Is(err, fs.ErrPermission), as[*image.UnsafeError](err):
		return exitPermission
	case as[*workspace.PreflightError](err):
		return exitCantCreate
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EIO), as[*RoomError](err), as[*image.RoomError](err):
		return exitIO
	case errors.Is(err, fs.ErrNotExist):
		return exitNoInput
	default:
		return exitFailed
	}
}

func as[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
