package castra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// HostCommand is a command for a shell of this computer. Nil streams are empty
// input and dropped output.
type HostCommand struct {
	Line           string
	Env            []string // "NAME=value"; the addresses of the VMs are put behind it
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// cancelGrace is how long a command may go on after ctx has ended.
const cancelGrace = time.Second

// Within brings the VMs up, runs a command of this computer with their
// addresses in its environment (see Session.Environment), and takes them down
// again, whatever happens. A command that fails is an error with the command's
// exit status.
func (p *Project) Within(ctx context.Context, o UpOptions, c HostCommand) error {
	return p.With(ctx, o, func(ctx context.Context, s *Session) error {
		cmd := exec.CommandContext(ctx, "sh", "-c", c.Line)
		cmd.Env = slices.Concat(c.Env, s.Environment())
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = cancelGrace
		err := cmd.Run()
		var exited *exec.ExitError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", c.Line, context.Cause(ctx))
		case errors.As(err, &exited):
			return &CommandError{c.Line, exited}
		default:
			return fmt.Errorf("%s: %w", c.Line, err)
		}
	})
}

// CommandError says: a command of this computer ended with a status other than
// 0.
type CommandError struct {
	Line string
	err  *exec.ExitError
}

func (e *CommandError) Error() string { return fmt.Sprintf("%s: %v", e.Line, e.err) }
func (e *CommandError) Unwrap() error { return e.err }

// Status is the command's exit status, 128 plus the number of the signal that
// ended it.
func (e *CommandError) Status() int {
	if ws, ok := e.err.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return e.err.ExitCode()
}
