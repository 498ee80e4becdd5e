package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrNobody says that no process listens.
var ErrNobody = errors.New("nobody listens there")

// exitPoll is how often a process is looked at where the kernel cannot tell
// of its end by itself.
const exitPoll = 10 * time.Millisecond

// Process is a handle on one process that stays on that process when its
// number is used again. Where the system has no such handle (macOS) it is the
// number alone.
type Process struct {
	PID  int
	proc *os.Process
}

// OpenProcess takes a handle on the process with this PID. A PID of 1 or less
// is refused: signals to those reach process groups or init.
func OpenProcess(pid int) (*Process, error) {
	if pid <= 1 {
		return nil, fmt.Errorf("process %d: not a process Castra may handle", pid)
	}
	proc, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return &Process{PID: pid, proc: proc}, nil
}

// Signal sends sig. A process that has ended is not an error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to process %d: %w", sig, p.PID, err)
	}
	return nil
}

// Release gives the handle back.
func (p *Process) Release() { _ = p.proc.Release() }

// pollExit waits for the end of p by asking again and again.
func (p *Process) pollExit(ctx context.Context) error {
	tick := time.NewTicker(exitPoll)
	defer tick.Stop()
	for !ended(p.PID) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
