package castra

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

// onTerminal calls f with the shell's end of this process's terminal, which is
// in raw mode meanwhile, and puts the terminal back whatever happens: also when
// a signal would end the process, and before mage leaves at the end of its -t.
// Without a terminal, f gets the plain streams.
func onTerminal(ctx context.Context, f func(ctx context.Context, s Shell) error) error {
	s := Shell{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return f(ctx, s)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-restoreTime))
		defer cancel()
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH)
	defer signal.Stop(signals)
	before, err := term.MakeRaw(in)
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(in, before) }()
	s.Terminal = os.Getenv("TERM")
	if s.Terminal == "" {
		s.Terminal = "dumb"
	}
	s.Width, s.Height, _ = term.GetSize(in)
	resized := make(chan [2]int, 1)
	s.Resized = resized
	go func() { // ends with ctx
		for {
			select {
			case <-ctx.Done():
				return
			case sig := <-signals:
				if sig != syscall.SIGWINCH {
					stop(errors.New("ended by a signal: " + sig.String()))
					return
				}
				resize(in, resized)
			}
		}
	}()
	return f(ctx, s)
}

// restoreTime is how long before the end of mage's time limit a shell is left.
const restoreTime = 300 * time.Millisecond

// resize leaves the present size for whoever takes it; one that was not taken
// yet gives way.
func resize(fd int, sizes chan [2]int) {
	width, height, err := term.GetSize(fd)
	if err != nil {
		return
	}
	select {
	case <-sizes:
	default:
	}
	sizes <- [2]int{width, height}
}
