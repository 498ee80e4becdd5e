package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"
)

const stderrKept = 4 << 10

// script runs a POSIX shell script with arguments in the guest. What it says
// on standard error becomes part of the error.
func (c *Client) script(ctx context.Context, stdin io.Reader, stdout io.Writer, script string, args ...string) error {
	return c.runScript(ctx, stdin, stdout, false, script, args...)
}

// receive runs a script that takes a file or an archive. When ctx ends, the
// script sees its input end early, and has a second to remove what is
// incomplete.
func (c *Client) receive(ctx context.Context, stdin io.Reader, script string, args ...string) error {
	return c.runScript(ctx, stdin, nil, true, script, args...)
}

func (c *Client) runScript(ctx context.Context, stdin io.Reader, stdout io.Writer, tidies bool, script string, args ...string) error {
	stderr := &head{limit: stderrKept}
	line := Sh(script, args...)
	err := c.run(ctx, &run{
		command: Command{Stdin: stdin, Stdout: stdout, Stderr: stderr},
		start:   func(s *ssh.Session) error { return s.Start(line) },
		what:    "a command",
		tidies:  tidies,
	})
	var exit *ExitError
	if said := strings.TrimSpace(stderr.String()); errors.As(err, &exit) && said != "" {
		return fmt.Errorf("%s (%w)", said, err)
	}
	return err
}

// head keeps the first bytes of what is written to it.
type head struct {
	bytes.Buffer
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	_, _ = h.Buffer.Write(p[:min(len(p), h.limit-h.Len())])
	return len(p), nil
}

// hasTar asks the guest once for a connection.
func (c *Client) hasTar(ctx context.Context) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tar == nil {
		err := c.script(ctx, nil, nil, "command -v tar >/dev/null 2>&1")
		var exit *ExitError
		if err != nil && !errors.As(err, &exit) {
			return false, err
		}
		has := err == nil
		c.tar = &has
	}
	return *c.tar, nil
}

// guestPath keeps a relative path from being taken for an option.
func guestPath(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "./" + path
}

func checkPath(path string) error {
	if path == "" || strings.Contains(path, "\x00") {
		return fmt.Errorf("path %q in the guest: is empty or has a NUL byte", path)
	}
	return nil
}
