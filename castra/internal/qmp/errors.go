package qmp

import (
	"errors"
	"fmt"
)

// ErrBusy says that the socket accepted a connection, or queued it, but no
// greeting came in time: another client holds the monitor, or QEMU is stopped.
var ErrBusy = errors.New("monitor is busy")

// Error is QEMU's refusal of a command. The connection stays usable.
type Error struct {
	Command string
	Class   string // QEMU's class: CommandNotFound, GenericError, DeviceNotFound, ...
	Desc    string // QEMU's own words
}

func (e *Error) Error() string {
	return fmt.Sprintf("QEMU refused %s: %s (%s)", e.Command, e.Desc, e.Class)
}

// PathTooLongError says that a socket path cannot be given to the kernel.
type PathTooLongError struct {
	Path  string
	Limit int // bytes
}

func (e *PathTooLongError) Error() string {
	return fmt.Sprintf("monitor socket path of %d bytes is over this system's limit of %d: %s", len(e.Path), e.Limit, e.Path)
}

// Hint says what to do about it.
func (e *PathTooLongError) Hint() string {
	return "move the workspace to a shorter path (state_dir in castra.toml)"
}
