package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// Command is one command for the guest. Line is read by the user's login
// shell there, and by no other. Nil streams are empty or thrown away. Stdout
// and Stderr may be the same writer.
type Command struct {
	Line   string
	Stdin  io.Reader // read until it ends; where the command ends first, a Read that blocks is left behind
	Stdout io.Writer
	Stderr io.Writer
}

// Run runs a command and waits for it. It ends with ctx: the command is sent
// SIGKILL, and if the guest does not close the session within a second the
// connection is closed. The connection is also closed, with ErrSilent, when
// the guest leaves keepalives unanswered for 15 seconds.
//
// Errors: *ExitError where the command did not end with 0, ErrNoExitStatus
// where nobody knows, the cause of ctx, or what a writer returned.
func (c *Client) Run(ctx context.Context, command Command) error {
	return c.run(ctx, &run{command: command, what: "a command", start: func(s *ssh.Session) error { return s.Start(command.Line) }})
}

func (c *Client) run(ctx context.Context, r *run) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.client, r.cancel, r.opened = c, cancel, make(chan *ssh.Session, 1)
	var watching sync.WaitGroup
	watching.Go(func() { c.watch(ctx, cancel) })
	done := make(chan error, 1)
	go func() { done <- r.session() }()
	err := r.wait(ctx, done)
	cancel(nil)
	watching.Wait()
	return err
}

// run is one command on its way. The first four are the caller's.
type run struct {
	command Command
	what    string                   // for errors
	start   func(*ssh.Session) error // sends the request that begins it
	tidies  bool                     // it cleans up by itself when its input ends early

	client *Client
	cancel context.CancelCauseFunc
	opened chan *ssh.Session
	over   atomic.Bool // the input is to end now
	mu     sync.Mutex  // one writer at a time, since both may be the same
}

func (r *run) wait(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	case <-ctx.Done():
	}
	cause := context.Cause(ctx)
	silent := errors.Is(cause, ErrSilent)
	if r.tidies && !silent {
		r.over.Store(true)
		if within(r.client.grace, done) {
			return cause
		}
	}
	// Telling the guest may block as well, so it has the same second.
	go func() {
		select {
		case session := <-r.opened:
			_ = session.Signal(ssh.SIGKILL)
			_ = session.Close()
		default:
		}
	}()
	if silent || !within(r.client.grace, done) {
		r.client.conn.Close()
		within(r.client.grace, done)
	}
	return cause
}

func within(limit time.Duration, done <-chan error) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done: //nolint:errcheck // the caller has a better cause
		return true
	case <-timer.C:
		return false
	}
}

func (r *run) session() error {
	session, err := r.client.conn.NewSession()
	if err != nil {
		return fmt.Errorf("open a session on %s: %w", r.client.addr, err)
	}
	defer session.Close()
	session.Stdout = r.writer(r.command.Stdout)
	session.Stderr = r.writer(r.command.Stderr)
	// Not session.Stdin: Wait would then wait for the reader even after the
	// command has ended.
	stdin, err := session.StdinPipe()
	if err != nil {
		return fmt.Errorf("open a session on %s: %w", r.client.addr, err)
	}
	r.opened <- session
	if err := r.start(session); err != nil {
		return fmt.Errorf("start %s on %s: %w", r.what, r.client.addr, err)
	}
	if r.command.Stdin == nil {
		_ = stdin.Close()
	} else {
		go r.feed(stdin)
	}
	return exitError(session.Wait())
}

// feed ends when the command's input does, or when the session is over.
func (r *run) feed(stdin io.WriteCloser) {
	in := &readError{Reader: r.command.Stdin, over: &r.over}
	_, _ = io.Copy(stdin, in)
	if in.err != nil {
		// The command must not take half of its input for all of it.
		r.cancel(fmt.Errorf("read the command's input: %w", in.err))
		return
	}
	_ = stdin.Close()
}

// readError tells a failed Read from a failed Write of io.Copy, and ends early
// when told so: only the goroutine that writes to a session may close its input.
type readError struct {
	io.Reader
	over *atomic.Bool
	err  error
}

func (r *readError) Read(p []byte) (int, error) {
	if r.over.Load() {
		return 0, io.EOF
	}
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (r *run) writer(w io.Writer) io.Writer {
	if w == nil {
		return nil
	}
	return &runWriter{run: r, w: w}
}

// runWriter ends the run when the caller's writer fails. Otherwise the guest
// would wait for room for ever.
type runWriter struct {
	run *run
	w   io.Writer
}

func (w *runWriter) Write(p []byte) (int, error) {
	w.run.mu.Lock()
	defer w.run.mu.Unlock()
	n, err := w.w.Write(p)
	if err != nil {
		w.run.cancel(fmt.Errorf("write the command's output: %w", err))
	}
	return n, err
}

func exitError(err error) error {
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &ExitError{Status: exit.ExitStatus(), Signal: exit.Signal()}
	case errors.As(err, &missing):
		return ErrNoExitStatus
	}
	return fmt.Errorf("%w: %w", ErrNoExitStatus, err)
}

// watch sends a keepalive every interval and ends the run when three have gone
// without an answer. One goroutine sends, since a send can block too.
func (c *Client) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(c.keepalive)
	defer ticker.Stop()
	answered := make(chan struct{}, 1)
	waiting, misses := false, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-answered:
			waiting, misses = false, 0
		case <-ticker.C:
			if waiting {
				if misses++; misses >= keepaliveMisses {
					cancel(fmt.Errorf("%s: %w", c.addr, ErrSilent))
					return
				}
				continue
			}
			waiting = true
			go func() {
				// Any answer will do; an error means that the connection is
				// gone, which the session notices by itself.
				_, _, _ = c.conn.SendRequest("keepalive@openssh.com", true, nil)
				answered <- struct{}{}
			}()
		}
	}
}
