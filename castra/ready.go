package castra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/logs"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

const (
	// emulationFactor is by how much waits for a guest grow without hardware
	// acceleration.
	emulationFactor = 2.5
	reportEvery     = time.Second
	tailLines       = 20
)

// awaitReady waits until the guest lets us in and runs a command, or its QEMU
// ends, or the time is over. The connection is the caller's to close.
func (u *upRun) awaitReady(ctx context.Context, p vmPlan, proc *qemu.Process) (*guest.Client, error) {
	r, _ := u.session.get(p.Name)
	if r.SSH.Port == 0 { // a killed up launched it and did not come to record the ports
		inForce, err := qemu.Forwards(ctx, target(u.ws.Layout, p.Name, r))
		if err == nil {
			err = setForwards(&r, p, inForce)
		}
		if err == nil {
			r.PID, err = qemu.HolderVM(u.ws.Pidfile(p.Name))
		}
		if err != nil {
			return nil, u.fault(p.Name, "boot", err)
		}
	}
	login, err := login(r)
	if err != nil {
		return nil, u.fault(p.Name, "boot", err)
	}
	limit := waitLimit(p)
	client, err := u.wait(ctx, r, proc, login, limit)
	if err != nil {
		return nil, u.fault(p.Name, fmt.Sprintf("boot: no SSH after %s", time.Since(r.Launched).Round(100*time.Millisecond)), err)
	}
	if err := u.configured(ctx, p, client); err != nil {
		client.Close()
		return nil, u.fault(p.Name, "boot", err)
	}
	r.SSH.Open = client.Open
	if err := u.markReady(p, r); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// markReady puts on record that the VM lets us in, and what its template has run already.
func (u *upRun) markReady(p vmPlan, r workspace.VM) error {
	r.Ready, r.Health = time.Now().UTC(), "ready"
	if r.SSH.Open {
		u.warn(p.Name, openLogin(r), "take an image that lets nobody in without a key, or keep its forwards on loopback and its computer to yourself")
	}
	if p.restored != "" {
		r.Bootstrap = workspace.Bootstrap{Digest: p.restored, Outcome: "noop", Ended: r.Ready}
	}
	if err := u.session.put(r); err != nil {
		return u.fault(p.Name, "boot", err)
	}
	u.events.Emit(event.Ready{VM: p.Name, User: r.SSH.User, Host: r.SSH.Host, Port: r.SSH.Port, Start: r.Start.Kind, ElapsedMS: r.Ready.Sub(r.Launched).Milliseconds()})
	return nil
}

// wait is guest.Wait with a bound, with word of how it goes, and with an end
// when QEMU ends.
func (u *upRun) wait(ctx context.Context, r workspace.VM, proc *qemu.Process, to guest.Login, limit time.Duration) (*guest.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	var refused atomic.Bool // SSH answers, and does not let us in yet
	watching.Go(func() { u.watch(ctx, r, proc, limit, &refused, stop) })
	client, err := guest.Wait(ctx, to, func(_ int, err error) { refused.Store(as[*guest.LoginError](err)) })
	cause := context.Cause(ctx)
	stop(nil)
	watching.Wait()
	switch {
	case err != nil && errors.As(cause, new(*qemu.ExitedError)):
		err = cause
	case as[*guest.ImpostorError](err) && proc != nil: // so it looks while QEMU ends
		err = orExit(proc, r.Name, u.ws.QEMULog(r.Name), err)
	}
	return client, err
}

// watch tells every second what is waited for, and ends the wait when
// QEMU has ended.
func (u *upRun) watch(ctx context.Context, r workspace.VM, proc *qemu.Process, limit time.Duration, refused *atomic.Bool, stop context.CancelCauseFunc) {
	ended := u.ended(ctx, r, proc)
	began := time.Now()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-ended:
			stop(err)
			return
		case <-tick.C:
			what := "SSH"
			if refused.Load() {
				what = "login by SSH"
			}
			u.events.Emit(event.Waiting{VM: r.Name, For: what, ElapsedMS: time.Since(began).Milliseconds(), LimitMS: limit.Milliseconds()})
		}
	}
}

// ended tells how QEMU ended, once it has. How one that is not our child did,
// nobody can tell.
func (u *upRun) ended(ctx context.Context, r workspace.VM, child *qemu.Process) <-chan error {
	ended := make(chan error, 1)
	go func() { // ends with ctx
		if child != nil {
			select {
			case <-child.Exited():
				ended <- child.ExitError(r.Name, u.ws.QEMULog(r.Name))
			case <-ctx.Done():
			}
			return
		}
		proc, err := host.OpenProcess(r.PID)
		if err != nil {
			return
		}
		defer proc.Release()
		if proc.WaitExit(ctx) == nil {
			ended <- &qemu.ExitedError{Name: r.Name, Err: errors.New("while the guest booted"), Log: u.ws.QEMULog(r.Name)}
		}
	}()
	return ended
}

// waitLimit is how long a guest may take to let us in.
func waitLimit(p vmPlan) time.Duration {
	if p.spec.Accelerator.Emulated() {
		return time.Duration(float64(p.Bootstrap.HandshakeTimeout) * emulationFactor)
	}
	return p.Bootstrap.HandshakeTimeout
}

// login is how the record says to reach the VM.
func login(r workspace.VM) (guest.Login, error) {
	key, err := os.ReadFile(r.SSH.Identity)
	if err != nil {
		return guest.Login{}, err
	}
	return guest.Login{
		Addr: addrOf(r), User: r.SSH.User,
		PrivateKey: key, HostKey: r.SSH.HostKey, Listener: listener(r),
	}, nil
}

// fault is a VMError with what QEMU and the guest printed last.
func (u *upRun) fault(vm, phase string, err error) error {
	e := &VMError{Op: "up", VM: vm, Phase: phase, Err: err, Next: "read " + u.ws.QEMULog(vm) + " and " + u.ws.SerialLog(vm)}
	if errors.Is(err, context.Canceled) {
		return e
	}
	e.QEMU, _ = logs.Tail(u.ws.QEMULog(vm), tailLines)
	e.Serial, _ = logs.Tail(u.ws.SerialLog(vm), tailLines)
	for _, part := range []struct {
		name  string
		lines []string
	}{{"QEMU", e.QEMU}, {"the serial port", e.Serial}} {
		if len(part.lines) > 0 {
			u.events.Emit(event.Message{VM: vm, Level: "error", Text: part.name + " said last:\n" + strings.Join(part.lines, "\n")})
		}
	}
	return e
}
