package castra

import (
	"context"
	"errors"
	"io"

	"castra.example/castra/castra/internal/guest"
)

// Shell is where an interactive shell in a guest reads and writes.
type Shell struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal is the kind of terminal at the other end of these, such as
	// "xterm-256color"; "" is none.
	Terminal string
	// Width and Height of it, in characters.
	Width, Height int
	// Resized gives new sizes, width and height; nil where it does not change.
	Resized <-chan [2]int
}

// Shell runs the login shell of a VM, named by its name or the role of a lone
// replica. A shell that ends with a status other than 0 is an error with that
// status.
func (p *Project) Shell(ctx context.Context, vm string, s Shell) error {
	client, name, err := p.dial(ctx, "ssh", vm)
	if err != nil {
		return err
	}
	defer client.Close()
	sizes := make(chan guest.Size)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with ctx
		for {
			select {
			case <-ctx.Done():
				return
			case size := <-s.Resized:
				select {
				case sizes <- guest.Size{Width: size[0], Height: size[1]}:
				case <-ctx.Done():
				}
			}
		}
	}()
	err = client.Shell(ctx, guest.Shell{
		Term: s.Terminal, Size: guest.Size{Width: s.Width, Height: s.Height}, Resized: sizes,
		Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr,
	})
	if exited := new(guest.ExitError); err == nil || errors.As(err, &exited) {
		return err
	}
	return &VMError{Op: "ssh", VM: name, Err: err}
}
