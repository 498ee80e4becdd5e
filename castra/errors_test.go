package castra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/bootstrap"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

func TestExitStatus(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "/x", Err: fs.ErrPermission}
	full := &fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}
	exited := &guest.ExitError{Status: 42}
	for _, c := range []struct {
		err    error
		status int
	}{
		{&usageError{"no", "yes"}, exitUsage},
		{&config.Error{Problem: "p"}, exitConfig},
		{config.Faults{{Problem: "p"}}, exitConfig},
		{&ChangedError{VM: "web-0"}, exitConfig},
		{&image.FormatError{}, exitConfig},
		{&config.NotFoundError{Dir: "/"}, exitNoInput},
		{&UnknownVMError{VM: "x"}, exitNoInput},
		{&NotRunningError{"web-0"}, exitNoInput},
		{&image.UnknownError{Name: "x"}, exitConfig},
		{&image.FetchError{Err: errors.New("silence")}, exitUnavailable},
		{&image.FetchError{Err: &image.MismatchError{}}, exitConfig},
		{&image.UnverifiedError{}, exitConfig},
		{&image.SidecarError{Err: errors.New("e")}, exitConfig},
		{&image.RoomError{}, exitIO},
		{&image.UnsafeError{}, exitPermission},
		{&DiskSizeError{}, exitConfig},
		{&qemu.MissingFirmwareError{}, exitUnavailable},
		{&fs.PathError{Op: "open", Path: "/x", Err: fs.ErrNotExist}, exitNoInput},
		{&qemu.MissingToolError{Tool: "qemu-img", Err: fs.ErrNotExist}, exitUnavailable},
		{&qemu.AcceleratorError{Name: "kvm", Err: denied}, exitUnavailable},
		{&guest.UnreachableError{Addr: "a", Last: errors.New("silence")}, exitUnavailable},
		{errors.New("anything"), exitFailed},
		{context.Canceled, exitFailed},
		{&qemu.ExitedError{Name: "web-0", Err: errors.New("exit status 1")}, exitFailed},
		{&PortError{VM: "web-0", Err: syscall.EADDRINUSE}, exitFailed},
		{&RoomError{What: "memory"}, exitIO},
		{&workspace.UnknownWorkspaceError{}, exitNoInput},
		{&workspace.AmbiguousWorkspaceError{}, exitUsage},
		{&RecordedError{"x"}, exitNoInput},
		{&NoForwardError{"web-0", 80}, exitNoInput},
		{&UnfitHostError{}, exitUnavailable},
		{&image.BusyError{}, exitBusy},
		{&OverlayExistsError{"/x"}, exitFailed},
		{&workspace.PreflightError{Root: "/x", Err: errors.New("e")}, exitCantCreate},
		{full, exitIO},
		{&fs.PathError{Op: "read", Path: "/x", Err: syscall.EIO}, exitIO},
		{&workspace.BusyError{}, exitBusy},
		{&workspace.TakenDownError{}, exitBusy},
		{&RunningError{[]string{"web-0"}}, exitBusy},
		{denied, exitPermission},
		{&workspace.PreflightError{Root: "/x", Err: denied}, exitPermission},
		{exited, 42},
		{&guest.ExitError{Status: 128 + 9, Signal: "KILL"}, 137},
		{&bootstrap.StepError{VM: "web-0", Step: "apply", Status: 3, Err: exited}, exitFailed},
	} {
		for name, err := range map[string]error{
			"bare":    c.err,
			"wrapped": &VMError{Op: "up", VM: "web-0", Phase: "launch", Err: fmt.Errorf("while: %w", c.err)},
			"joined":  errors.Join(c.err, errors.New("and more")),
		} {
			var status interface{ ExitStatus() int }
			require.ErrorAs(t, exit(err), &status)
			require.Equal(t, c.status, status.ExitStatus(), "%s %T", name, c.err)
			require.ErrorContains(t, exit(err), c.err.Error())
		}
	}
	require.NoError(t, exit(nil))
}

// Each of several faults is told with the way out of it.
func TestExplain(t *testing.T) {
	err := errors.Join(
		&PortError{VM: "web-0", Forward: Forward{"127.0.0.1", 80, 80, "tcp"}, File: "castra.toml", Line: 7, Owner: "pid 1 (nginx)", Err: syscall.EADDRINUSE},
		errors.Join(&NotRunningError{"db-0"}, errors.New("no advice")),
		&VMError{Op: "up", VM: "x-0", Phase: "boot", Err: errors.New("silence"), Next: "look at it"},
		&VMError{Op: "up", VM: "y-0", Phase: "boot", Err: &NotRunningError{"y-0"}, Next: "then look"},
	)
	require.Equal(t, `VM web-0: forward 127.0.0.1:80: the port is held by pid 1 (nginx) (castra.toml:7)
  next: end that process, or leave out host to let the kernel choose a free port
VM db-0 does not run
  next: mage up
no advice
  next: mage status and mage logs tell more; the command can be run again
up x-0: boot: silence
  next: look at it
up y-0: boot: VM y-0 does not run
  next: mage up; then look`, exit(err).Error())
}

// A wrapped join keeps its advice.
func TestExplainFindsAdviceBelow(t *testing.T) {
	err := fmt.Errorf("web: %w", &NotRunningError{"web-0"})
	require.Equal(t, "web: VM web-0 does not run\n  next: mage up", explain(err))
}

// An error without advice of its own gets that of the system's error below it;
// the failure of a user's command needs none.
func TestAdviceOfLastResort(t *testing.T) {
	path := func(err error) error { return &fs.PathError{Op: "write", Path: "/x", Err: err} }
	for says, err := range map[string]error{
		"check who owns it": path(syscall.EACCES),
		"make room":         path(syscall.ENOSPC),
		"mage status":       errors.New("gone"),
		"what is left":      context.Canceled,
	} {
		require.Contains(t, explain(fmt.Errorf("up: %w", err)), "\n  next: ", says)
		require.Contains(t, explain(err), says)
	}
	require.NotContains(t, explain(&guest.ExitError{Status: 3}), "next:")
}

// What is wrong with a port is told apart.
func TestPortErrorNamesTheCause(t *testing.T) {
	for cause, says := range map[error][2]string{
		syscall.EADDRINUSE:    {"held by another process", "end that process"},
		syscall.EACCES:        {"permission denied", "above 1023"},
		syscall.EADDRNOTAVAIL: {"cannot assign requested address", "address of this computer"},
	} {
		err := &PortError{VM: "web-0", Forward: Forward{"127.0.0.1", 80, 80, "tcp"}, File: "castra.toml", Line: 7, Err: os.NewSyscallError("bind", cause)}
		require.ErrorContains(t, err, says[0])
		require.Contains(t, err.Hint(), says[1])
	}
}
