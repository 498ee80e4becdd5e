package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/guest"
)

const (
	waitingEvery = time.Second
	cleanupLimit = 3 * time.Second // after a cancel mage leaves 5 s for everything
	errorLines   = 20
)

// Step is one step of a run.
type Step struct {
	Name      string `json:"name"`
	Status    string `json:"status"` // "completed" or "failed"
	ElapsedMS int64  `json:"elapsed_ms"`
	Detail    string `json:"detail,omitempty"`
}

// Result is how a run went.
type Result struct {
	Outcome string // "applied", "noop", "skipped" or "failed"
	Steps   []Step
	Log     string // path of the run's log; "" where there is none
}

// Run bootstraps one VM: it waits until the guest lets us in, takes the script
// and the payload into a private directory there, runs the script, checks what
// it should have left, and removes the directory, whatever happened. The
// script itself may take as long as ctx allows.
//
// In mode skip, or without a script, nothing is done. Otherwise a log is left
// at plan.LogPath. The error is a *StepError. Planned is not among the events:
// whoever decides whether to call Run knows the reason.
func Run(ctx context.Context, plan Plan, login guest.Login, emit func(event.Event)) (Result, error) {
	if emit == nil {
		emit = func(event.Event) {}
	}
	if plan.Mode == "skip" || plan.Script == "" {
		emit(event.BootstrapCompleted{VM: plan.VM, Run: plan.Run, Outcome: "skipped"})
		return Result{Outcome: "skipped"}, nil
	}
	r := &run{plan: plan.withDefaults(), login: login, emit: emit, redactor: newRedactor(plan.Env), started: time.Now()}
	emit(event.BootstrapStarted{VM: plan.VM, Run: plan.Run, Digest: plan.Artifact, LimitMS: r.plan.HandshakeTimeout.Milliseconds()})
	failure := r.all(ctx)
	if failure != nil {
		failure.Err = r.redactor.err(failure.Err)
	}
	outcome := "applied"
	switch {
	case failure != nil:
		outcome = "failed"
	case r.noop:
		outcome = "noop"
	}
	result := Result{Outcome: outcome, Steps: r.steps, Log: r.writeLog(outcome, failure)}
	elapsed := time.Since(r.started).Milliseconds()
	if failure == nil {
		emit(event.BootstrapCompleted{VM: plan.VM, Run: plan.Run, Outcome: outcome, Log: result.Log, ElapsedMS: elapsed})
		return result, nil
	}
	failure.Log = result.Log
	emit(event.BootstrapFailed{VM: plan.VM, Run: plan.Run, Step: failure.Step,
		Error: failure.Err.Error(), Log: result.Log, ElapsedMS: elapsed})
	return result, failure
}

// run is one run on its way.
type run struct {
	plan     Plan
	login    guest.Login
	emit     func(event.Event)
	redactor *redactor
	started  time.Time

	script script
	client *guest.Client
	dir    string // the private directory in the guest, once it is made
	steps  []Step
	status *int // the script's exit status, once it has one
	left   string

	mu      sync.Mutex // of what comes from the guest's streams
	tail    tail
	noop    bool
	emitted int
}

func (r *run) all(ctx context.Context) *StepError {
	if err := r.prepare(); err != nil {
		return &StepError{VM: r.plan.VM, Step: "prepare", Err: err}
	}
	defer r.leave(ctx)
	for _, step := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"wait-handshake", r.wait}, {"connect", r.connect}, {"transfer", r.transfer}, {"apply", r.apply}, {"verify", r.verify},
	} {
		if err := r.step(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	return nil
}

// prepare finds what can be found wrong before the guest is touched.
func (r *run) prepare() error {
	if err := r.plan.check(); err != nil {
		return err
	}
	var err error
	if r.script, err = inspect(r.plan.Script); err != nil {
		return err
	}
	if r.plan.Payload != "" {
		_, err = os.Stat(r.plan.Payload)
	}
	return err
}

func (r *run) step(ctx context.Context, name string, do func(context.Context) (string, error)) *StepError {
	begin := time.Now()
	r.emit(event.BootstrapStep{VM: r.plan.VM, Run: r.plan.Run, Step: name, Status: "started"})
	var detail string
	var err error
	r.during(name, begin, func() { detail, err = do(ctx) })
	step := Step{Name: name, Status: "completed", ElapsedMS: time.Since(begin).Milliseconds(), Detail: detail}
	if err != nil {
		step.Status, step.Detail = "failed", r.redactor.text(err.Error())
	}
	r.steps = append(r.steps, step)
	r.emit(event.BootstrapStep{VM: r.plan.VM, Run: r.plan.Run, Step: name, Status: step.Status,
		Detail: step.Detail, ElapsedMS: step.ElapsedMS})
	if err == nil {
		return nil
	}
	failure := &StepError{VM: r.plan.VM, Step: name, Err: err}
	var exit *guest.ExitError
	if name == "apply" || name == "verify" {
		r.mu.Lock()
		failure.Tail = r.tail.last(errorLines)
		r.mu.Unlock()
		if errors.As(err, &exit) {
			failure.Status = exit.Status
		}
	}
	return failure
}

// during tells every second, while do runs, which step is at work and, where it
// has a limit, until when.
func (r *run) during(step string, begin time.Time, do func()) {
	limit := time.Duration(0)
	if step == "wait-handshake" {
		limit = r.plan.HandshakeTimeout
	}
	done := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		tick := time.NewTicker(waitingEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				r.emit(event.Waiting{VM: r.plan.VM, For: "bootstrap: " + step, ElapsedMS: time.Since(begin).Milliseconds(), LimitMS: limit.Milliseconds()})
			}
		}
	})
	do()
	close(done)
	telling.Wait()
}

func (r *run) wait(ctx context.Context) (string, error) {
	limit := r.plan.HandshakeTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("handshake timeout of %s: %w", limit, context.DeadlineExceeded))
	defer cancel()
	tries := 0
	var err error
	r.client, err = guest.Wait(ctx, r.login, func(n int, _ error) { tries = n })
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s@%s after %d more tries", r.login.User, r.login.Addr, tries), nil
}

// connect asks for a first sign of life over the connection that stays.
func (r *run) connect(ctx context.Context) (string, error) {
	var system string
	out := &lines{redactor: r.redactor, take: func(line string) { system = line }}
	err := r.client.Run(ctx, guest.Command{Line: guest.Sh("uname -srm"), Stdout: out})
	out.end()
	if err != nil {
		return "", fmt.Errorf("ask the guest for its system: %w", err)
	}
	return system, nil
}

// leave removes the private directory, also after a cancel.
func (r *run) leave(ctx context.Context) {
	if r.client == nil {
		return
	}
	defer r.client.Close()
	if r.dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	if err := r.client.Run(ctx, guest.Command{Line: guest.Sh(`cd / && rm -rf -- "$1"`, r.dir)}); err != nil {
		r.left = r.dir
		r.emit(event.Message{VM: r.plan.VM, Level: "warning",
			Text: r.redactor.text(fmt.Sprintf("bootstrap could not remove %s in the guest: %v", r.dir, err))})
	}
}

// line takes one redacted line of the script's or the check's output.
func (r *run) line(stream, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tail.add(text)
	if stream == "stdout" && text == noopLine && r.status == nil { // not from verify_command
		r.noop = true
	}
	if r.emitted > eventsMax {
		return
	}
	if r.emitted += len(text) + 1; r.emitted > eventsMax {
		r.emit(event.Message{VM: r.plan.VM, Level: "warning",
			Text: fmt.Sprintf("bootstrap has written over %d KiB; of the rest, only the last lines are kept, in its log", eventsMax>>10)})
		return
	}
	r.emit(event.BootstrapOutput{VM: r.plan.VM, Run: r.plan.Run, Stream: stream, Line: text})
}

func (r *run) output(stream string) *lines {
	return &lines{redactor: r.redactor, take: func(text string) { r.line(stream, text) }}
}

func (r *run) lastLines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.tail.lines)
}
