package guest

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
)

// Size is that of a terminal, in characters. 0 is unknown.
type Size struct{ Width, Height int }

// Shell is a login shell for a person. The streams are as those of a Command.
type Shell struct {
	Term    string      // kind of the terminal, "xterm-256color"; "": the guest makes no terminal
	Size    Size        // of the terminal at the start
	Resized <-chan Size // new sizes; nil or closed: no more of them
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer // with a terminal, the guest sends everything to Stdout
}

// Shell runs the user's login shell and waits for it. It ends, and fails, as
// Run does; a Read of Stdin that blocks does not hold it up, and is left behind.
// The terminal on this computer is the caller's to make raw.
func (c *Client) Shell(ctx context.Context, shell Shell) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := Command{Stdin: shell.Stdin, Stdout: shell.Stdout, Stderr: shell.Stderr}
	return c.run(ctx, &run{command: command, what: "a shell", start: func(session *ssh.Session) error {
		if shell.Term != "" {
			// The rest of the modes are those the guest gives a new terminal.
			modes := ssh.TerminalModes{ssh.IUTF8: 1}
			if err := session.RequestPty(shell.Term, shell.Size.Height, shell.Size.Width, modes); err != nil {
				return fmt.Errorf("ask for a terminal: %w", err)
			}
			go resize(ctx, session, shell.Resized)
		}
		return session.Shell()
	}})
}

// resize passes sizes on until ctx ends.
func resize(ctx context.Context, session *ssh.Session, sizes <-chan Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			// A session that is over is no news here.
			if !ok || session.WindowChange(size.Height, size.Width) != nil {
				return
			}
		}
	}
}
