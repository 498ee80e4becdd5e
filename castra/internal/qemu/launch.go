package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"castra.example/castra/castra/internal/host"
)

const (
	startPoll = 2 * time.Millisecond
	// StartLimit bounds the time from exec to a QEMU that holds its pidfile
	// and answers on its monitor; it is 0.2 s on an idle machine.
	StartLimit = 60 * time.Second
	killLimit  = 2 * time.Second
)

// Process is a QEMU that this process started.
type Process struct {
	PID    int
	ended  chan struct{} // closed when it has been waited for
	exited chan struct{} // and when its last words are in its logs, too
	err    error         // how it ended; read after either is closed
}

// ExitedError says: QEMU ended although nobody asked it to.
type ExitedError struct {
	Name string
	Err  error  // exit status or signal
	Log  string // the file that holds what it printed
}

func (e *ExitedError) Error() string { return fmt.Sprintf("QEMU ended: %v", e.Err) }
func (e *ExitedError) Unwrap() error { return e.Err }

// Start runs QEMU in a session of its own, so that neither Ctrl-C in this
// terminal nor the end of this process reaches it. What it prints goes to the
// end of the file log, what its guest prints to Spec.SerialLog; each is set
// aside, once, where it grows long. Start returns when QEMU holds its pidfile,
// or with an *ExitedError when it ended before.
func Start(ctx context.Context, s Spec, log string) (*Process, error) {
	out, err := startPump(ctx, log, qemuLogLimit)
	if err != nil {
		return nil, err
	}
	defer out.in.Close() // QEMU's alone: the pumps end with it
	serial, err := startPump(ctx, s.SerialLog, serialLogLimit)
	if err != nil {
		return nil, err
	}
	defer serial.in.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.Binary, s.Args()...) // QEMU outlives ctx
	cmd.Dir = s.Dir
	cmd.Stdout, cmd.Stderr = out.in, out.in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = environment(os.Environ(), runtime.GOOS)
	overlay, err := lockLaunch(s.Overlay)
	if err != nil {
		return nil, err
	}
	defer overlay.Close()
	cmd.ExtraFiles = []*os.File{serial.in} // descriptor SerialFD there
	if s.State != "" {
		state, err := os.OpenFile(s.State, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		defer state.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, state) // descriptor stateFD there
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, overlay)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	// QEMU must not wait for a pump that does not read. On its serial port it looks after that itself.
	_ = syscall.SetNonblock(int(out.in.Fd()), true)
	p := &Process{PID: cmd.Process.Pid, ended: make(chan struct{}), exited: make(chan struct{})}
	go func() { // ends with QEMU: a child that nobody waits for stays a zombie
		p.err = cmd.Wait()
		close(p.ended)
		drain(out, serial)
		close(p.exited)
	}()
	return p, p.awaitPidfile(ctx, s, log)
}

// mallocTunables make glibc's malloc ask for huge pages and grow in large
// steps: QEMU's start is mostly page faults, and this spares half of them
// (7.2 on Debian 12, two cores: 84 ms instead of 124 ms).
const mallocTunables = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.top_pad=16777216:glibc.malloc.trim_threshold=268435456"

// environment is QEMU's. Tunables that the user has set are left.
func environment(ours []string, goos string) []string {
	set := func(v string) bool { return strings.HasPrefix(v, "GLIBC_TUNABLES=") }
	if goos != "linux" || slices.ContainsFunc(ours, set) {
		return ours
	}
	return append(slices.Clip(ours), mallocTunables)
}

// awaitPidfile ends the QEMU that does not come to hold its pidfile.
func (p *Process) awaitPidfile(ctx context.Context, s Spec, log string) error {
	ctx, cancel := context.WithTimeout(ctx, StartLimit)
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		pid, err := Holder(s.Pidfile)
		if err == nil && pid == p.PID {
			return nil
		}
		select {
		case <-p.exited:
			return &ExitedError{s.Name, p.exitCause(), log}
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("QEMU (pid %d) did not take its pidfile: %w", p.PID, ctx.Err()), err, p.kill())
		case <-tick.C:
		}
	}
}

// kill ends a QEMU of our own that is not known by its pidfile yet, and waits
// for its end: nothing else would find it. While we have not waited for it,
// its number cannot be used again.
func (p *Process) kill() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	proc, err := host.OpenProcess(p.PID)
	if err != nil {
		return err
	}
	defer proc.Release()
	if err := proc.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(killLimit):
		return fmt.Errorf("QEMU (pid %d) still runs %s after SIGKILL", p.PID, killLimit)
	}
}

func (p *Process) exitCause() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// Exited is closed when QEMU has ended, and what it wrote is in its logs.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// ExitError tells how QEMU ended; valid once Exited is closed.
func (p *Process) ExitError(name, log string) error { return &ExitedError{name, p.exitCause(), log} }
