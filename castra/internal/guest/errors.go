package guest

import (
	"errors"
	"fmt"
)

// UnreachableError says that no SSH server answered at Addr. Last is the
// outcome of the last try.
type UnreachableError struct {
	Addr string
	Last error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("could not connect to %s: %v", e.Addr, e.Last)
}

func (e *UnreachableError) Unwrap() error { return e.Last }

// Hint says what to do next.
func (e *UnreachableError) Hint() string {
	return "see the VM's serial log for how far it booted"
}

// ImpostorError says that another process than the guest's QEMU takes
// connections to Addr. Nothing was sent to it.
type ImpostorError struct {
	Addr, Owner string
}

func (e *ImpostorError) Error() string {
	return fmt.Sprintf("%s is not the guest's: %s listens there, and nothing was sent to it", e.Addr, e.Owner)
}

// Hint says what to do next.
func (e *ImpostorError) Hint() string {
	return "end that process if it should not be there, then take the VM down and up again"
}

// HostKeyError says that whoever answered at Addr is not the guest that was
// started. Got and Want are fingerprints; Got is empty when the server has no
// key of the pinned type.
type HostKeyError struct {
	Addr, Got, Want string
}

func (e *HostKeyError) Error() string {
	got := e.Got
	if got == "" {
		got = "no key of that type"
	}
	return fmt.Sprintf("host key of %s: got %s, want %s", e.Addr, got, e.Want)
}

// Hint says what to do next.
func (e *HostKeyError) Hint() string {
	return "another server holds this port, or the guest made its own host key: take the VM down and up again"
}

// LoginError says that the guest answered with the right host key and refused
// the user or the key.
type LoginError struct {
	Addr, User string
	Err        error
}

func (e *LoginError) Error() string {
	return fmt.Sprintf("log in to %s as %s: %v", e.Addr, e.User, e.Err)
}

func (e *LoginError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *LoginError) Hint() string {
	return "check user and identity below [vms.ssh]; the guest's image must take the key from its seed"
}

// ExitError says that a command in the guest ended, but not with 0.
type ExitError struct {
	Status int    // the exit status; 128 + the signal's number where it was killed
	Signal string // "TERM", "KILL"...; "" where it exited by itself
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return fmt.Sprintf("killed by signal %s", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// ErrNoExitStatus says that a command's session ended without telling how the
// command did: the connection broke, or the guest went down.
var ErrNoExitStatus = errors.New("the session ended without an exit status")

// ErrSilent says that the guest has stopped answering on an open connection.
var ErrSilent = errors.New("the guest has stopped answering")
