package qemu

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qmp"
)

// Ladder is how long each step of a shutdown may take. A step of zero is left
// out; the last always has a bound of its own.
type Ladder struct {
	Graceful  time.Duration // after the ACPI power button
	Terminate time.Duration // after SIGTERM
	Kill      time.Duration // after SIGKILL
}

// Outcomes of Stop.
const (
	NotRunning = "not running"
	Graceful   = "graceful"
	Terminated = "terminated"
	Killed     = "killed"
)

// StuckError says: the process did not end even by SIGKILL.
type StuckError struct {
	Name string
	PID  int
	Wait time.Duration
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("QEMU (pid %d) still runs %s after SIGKILL", e.PID, e.Wait)
}

// Hint says what to do next.
func (e *StuckError) Hint() string {
	return "it hangs in the kernel, most often on a dead disk or network file system; mage down tries again"
}

// Stop ends the VM: the power button, then SIGTERM, then SIGKILL, each bounded
// by the ladder, and returns when the process is gone. A guest that cannot
// heed the button (paused, stopped on a full disk) is told to quit instead. A
// ctx that ends leaves the VM as it is by then.
func Stop(ctx context.Context, t Target, l Ladder, emit func(event.Event)) (string, error) {
	began := time.Now()
	state, err := InspectSettled(ctx, t)
	if err != nil {
		return "", err
	}
	if !state.Alive() {
		return NotRunning, nil
	}
	proc, err := host.OpenProcess(state.PID)
	if err != nil {
		return "", err
	}
	defer proc.Release()
	// The number may have gone to another process before the handle was taken.
	if still, err := isVM(ctx, t, state, proc); err != nil || !still {
		return NotRunning, err
	}
	if l.Graceful > 0 {
		gone, err := cooperate(ctx, t, state, proc, l.Graceful, emit)
		if gone || err != nil {
			return Graceful, err
		}
	}
	outcome := Graceful // where it ends before a signal is sent
	for _, step := range []struct {
		signal  syscall.Signal
		name    string
		wait    time.Duration
		outcome string
	}{
		{syscall.SIGTERM, "SIGTERM", l.Terminate, Terminated},
		{syscall.SIGKILL, "SIGKILL", max(l.Kill, time.Second), Killed},
	} {
		if step.wait <= 0 {
			continue
		}
		emit(event.Escalated{VM: t.Name, Signal: step.name, LimitMS: step.wait.Milliseconds()})
		if still, err := isVM(ctx, t, state, proc); err != nil || !still {
			return outcome, err
		}
		if err := proc.Signal(step.signal); err != nil {
			return "", err
		}
		outcome = step.outcome
		if gone, err := waitExit(ctx, proc, step.wait); gone || err != nil {
			return step.outcome, err
		}
	}
	return "", &StuckError{t.Name, state.PID, time.Since(began).Round(time.Second)}
}

// cooperate asks over the monitor and tells whether the VM ended by it.
func cooperate(ctx context.Context, t Target, state State, proc *host.Process, wait time.Duration, emit func(event.Event)) (bool, error) {
	command, reason := "system_powerdown", "ACPI power button"
	switch state.Status {
	case "running":
	case "":
		emit(event.CooperativeAttempted{VM: t.Name, Channel: "unavailable", Reason: monitorTrouble(state.Err)})
		return false, nil
	default:
		command, reason = "quit", "the guest is "+state.Status
	}
	emit(event.CooperativeAttempted{VM: t.Name, Channel: "qmp", Reason: reason, LimitMS: wait.Milliseconds()})
	began := time.Now()
	if err := tell(ctx, t, proc.PID, command); err != nil {
		emit(event.CooperativeTimedOut{VM: t.Name, Reason: err.Error(), ElapsedMS: time.Since(began).Milliseconds()})
		return false, ctx.Err()
	}
	gone, err := waitExit(ctx, proc, wait)
	switch {
	case gone:
		emit(event.CooperativeSucceeded{VM: t.Name, ElapsedMS: time.Since(began).Milliseconds()})
	case err == nil:
		emit(event.CooperativeTimedOut{VM: t.Name, Reason: "the guest did not power off", ElapsedMS: time.Since(began).Milliseconds()})
	}
	return gone, err
}

func monitorTrouble(err error) string {
	switch {
	case err == nil:
		return "no answer on the monitor"
	case noMonitor(err):
		return "nobody listens on the monitor's socket"
	default:
		return err.Error()
	}
}

// tell gives a command to the monitor. Pid is the process that must serve it,
// 0 where that does not matter.
func tell(ctx context.Context, t Target, pid int, command string) error {
	ctx, cancel := context.WithTimeout(ctx, monitorLimit)
	defer cancel()
	mon, err := openMonitor(ctx, t)
	if err != nil {
		return err
	}
	defer mon.Close()
	if peer := mon.Peer(); pid != 0 && peer != 0 && peer != pid {
		return foreignMonitor(t, peer, pid)
	}
	err = mon.Execute(ctx, command, nil, nil)
	var refused *qmp.Error
	if command == "quit" && err != nil && !errors.As(err, &refused) {
		return nil // QEMU may end before it has answered
	}
	return err
}

// isVM tells that the process behind the handle still is the VM. Asked when
// the handle is open, the answer holds for what is then done through it.
func isVM(ctx context.Context, t Target, state State, proc *host.Process) (bool, error) {
	if !state.Tracked {
		return Inspect(ctx, t).PID == proc.PID, nil
	}
	pid, err := HolderVM(t.Pidfile)
	return pid == proc.PID, err
}

// waitExit tells whether the process ended within wait; an error only when
// ctx ended first.
func waitExit(ctx context.Context, proc *host.Process, wait time.Duration) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := proc.WaitExit(limited); err != nil {
		return false, ctx.Err()
	}
	return true, nil
}
