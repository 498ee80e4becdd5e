package guest

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"castra.example/castra/castra/internal/qemutest"
)

// typed is a person at a terminal: what was written to keys is read, and then
// the Read blocks, as a terminal's does.
func typed(t *testing.T) (stdin io.Reader, keys io.Writer) {
	t.Helper()
	reader, writer := io.Pipe()
	t.Cleanup(func() { writer.Close() })
	return reader, writer
}

// screen is what the guest shows.
type screen struct {
	t    *testing.T
	in   *bufio.Reader
	seen strings.Builder
}

func show(t *testing.T) (*screen, io.WriteCloser) {
	reader, writer := io.Pipe()
	t.Cleanup(func() { reader.Close() })
	return &screen{t: t, in: bufio.NewReader(reader)}, writer
}

// find reads until text has been shown.
func (s *screen) find(text string) {
	s.t.Helper()
	for !strings.Contains(s.seen.String(), text) {
		b, err := s.in.ReadByte()
		require.NoError(s.t, err, "%q was not shown, but %q", text, s.seen.String())
		s.seen.WriteByte(b)
	}
	s.seen.Reset()
}

// rest lets the guest show what it likes.
func (s *screen) rest() { _, _ = io.Copy(io.Discard, s.in) }

// A terminal in the guest knows its kind and size, hears of new sizes, and the
// shell's status arrives although nobody ends the input.
func TestShellTerminal(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	stdin, keys := typed(t)
	shown, stdout := show(t)
	sizes := make(chan Size)
	done := make(chan error, 1)
	go func() {
		defer stdout.Close()
		done <- client.Shell(limit(t, time.Minute), Shell{
			Term: "xterm-256color", Size: Size{Width: 132, Height: 43}, Resized: sizes, Stdin: stdin, Stdout: stdout,
		})
	}()
	press := func(text string) {
		_, err := io.WriteString(keys, text)
		require.NoError(t, err)
	}
	press("PS1='pro''mpt> '; tty >/dev/null && echo \"on $TERM\"; stty size\n")
	shown.find("on xterm-256color\r\n")
	shown.find("43 132\r\n")
	press("while [ \"$(stty size)\" != '33 99' ]; do sleep 0.02; done; echo re''sized\n")
	sizes <- Size{Width: 99, Height: 33}
	shown.find("resized\r\nprompt> ")
	close(sizes)
	press("cat\n")
	press("echoed\n")
	shown.find("echoed\r\nechoed\r\n") // the second by cat
	press("\x03")                      // of the guest's terminal, not of this one
	shown.find("prompt> ")
	press("exit 7\n")
	go shown.rest()
	require.Equal(t, &ExitError{Status: 7}, <-done)
}

func TestShellPlain(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	for name, c := range map[string]struct {
		stdin, stdout, stderr string
		want                  error
	}{
		"end of input":       {stdin: "tty || echo plain; echo err >&2", stdout: "not a tty\nplain\n", stderr: "err\n"},
		"status":             {stdin: "exit 3\n", want: &ExitError{Status: 3}},
		"status 255":         {stdin: "exit 255\n", want: &ExitError{Status: 255}},
		"of a failed child":  {stdin: "false\n", want: &ExitError{Status: 1}},
		"signal":             {stdin: "kill -KILL $$\n", want: &ExitError{Status: 137, Signal: "KILL"}},
		"no input, no error": {},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			shell := Shell{Stdout: &stdout, Stderr: &stderr}
			if c.stdin != "" {
				shell.Stdin = strings.NewReader(c.stdin)
			}
			err := client.Shell(limit(t, time.Minute), shell)
			if c.want == nil {
				require.NoError(t, err)
			} else {
				require.Equal(t, c.want, err)
			}
			require.Equal(t, c.stdout, stdout.String())
			require.Equal(t, c.stderr, stderr.String())
		})
	}
}

// Failure bank 110: a limit ends the shell with its cause, so that the caller
// gets to restore the terminal.
func TestShellCancelled(t *testing.T) {
	for _, term := range []string{"", "vt100"} {
		_, login := fakeGuest(t, qemutest.SSHOptions{})
		client := dial(t, login)
		client.grace = 10 * time.Second
		stdin, _ := typed(t)
		shown, stdout := show(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- client.Shell(ctx, Shell{Term: term, Stdin: io.MultiReader(strings.NewReader("echo u''p\n"), stdin), Stdout: stdout})
		}()
		shown.find("up")
		go shown.rest()
		cancel(context.DeadlineExceeded)
		require.ErrorIs(t, <-done, context.DeadlineExceeded)
		require.NoError(t, client.Run(t.Context(), Command{Line: "true"}), "the connection lives on")
	}
}

// F-3: whatever the guest does with a shell, it ends by ctx or by keepalive.
func TestShellHostileF3(t *testing.T) {
	never := func(open ssh.NewChannel) {
		_, requests, _ := open.Accept()
		for range requests {
		}
	}
	refused := func(open ssh.NewChannel) {
		_, requests, _ := open.Accept()
		ssh.DiscardRequests(requests)
	}
	shell := Shell{Term: "vt100", Stdin: strings.NewReader("x"), Stdout: io.Discard}

	client := dial(t, hostileGuest(t, true, never))
	client.grace = 50 * time.Millisecond
	require.ErrorIs(t, client.Shell(limit(t, 300*time.Millisecond), shell), context.DeadlineExceeded)

	client = dial(t, hostileGuest(t, false, never))
	client.keepalive, client.grace = 20*time.Millisecond, 50*time.Millisecond
	require.ErrorIs(t, client.Shell(t.Context(), shell), ErrSilent)

	err := dial(t, hostileGuest(t, true, refused)).Shell(t.Context(), shell)
	require.ErrorContains(t, err, "ask for a terminal")
	require.ErrorContains(t, err, "start a shell")
}

func TestShellConnectionLost(t *testing.T) {
	server, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	stdin, keys := typed(t)
	shown, stdout := show(t)
	done := make(chan error, 1)
	go func() { done <- client.Shell(t.Context(), Shell{Term: "vt100", Stdin: stdin, Stdout: stdout}) }()
	_, err := io.WriteString(keys, "echo u''p\n")
	require.NoError(t, err)
	shown.find("up")
	go shown.rest()
	server.Close()
	require.Error(t, <-done)
}
