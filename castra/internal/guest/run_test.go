package guest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"castra.example/castra/castra/internal/qemutest"
)

func TestRun(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	for name, c := range map[string]struct {
		line, stdin, stdout, stderr string
		want                        error
	}{
		"output":            {line: "echo out; echo err >&2", stdout: "out\n", stderr: "err\n"},
		"stdin":             {line: "cat", stdin: "a\nb", stdout: "a\nb"},
		"no stdin":          {line: "cat; echo done", stdout: "done\n"},
		"stdin not read":    {line: "exit 0", stdin: strings.Repeat("x", 8<<20)},
		"status":            {line: "exit 3", want: &ExitError{Status: 3}},
		"status 255":        {line: "exit 255", want: &ExitError{Status: 255}},
		"signal":            {line: "kill -KILL $$", want: &ExitError{Status: 137, Signal: "KILL"}},
		"last of a pipe":    {line: "false | true"},
		"dollar signs kept": {line: `x=5; echo "$x$$" | grep -c '^5[0-9]'; echo '$HOME ${UNSET}'`, stdout: "1\n$HOME ${UNSET}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			command := Command{Line: c.line, Stdout: &stdout, Stderr: &stderr}
			if c.stdin != "" {
				command.Stdin = strings.NewReader(c.stdin)
			}
			err := client.Run(t.Context(), command)
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

func TestRunOneWriterForBoth(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	var both bytes.Buffer // not safe for two writers at a time
	line := "for i in 1 2 3 4 5 6 7 8 9; do echo out; echo err >&2; done"
	require.NoError(t, client.Run(t.Context(), Command{Line: line, Stdout: &both, Stderr: &both}))
	require.Len(t, both.String(), 9*8)
}

func TestRunAtTheSameTime(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			var out bytes.Buffer
			err := client.Run(t.Context(), Command{Line: "cat", Stdin: strings.NewReader("x"), Stdout: &out})
			if err != nil || out.String() != "x" {
				t.Errorf("%q, %v", out.String(), err)
			}
		})
	}
	running.Wait()
}

// A cancelled command is killed, and the connection lives on.
func TestRunCancelled(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	client.grace = 10 * time.Second
	why := errors.New("taken down")
	ctx, cancel := context.WithCancelCause(t.Context())
	started := writerFunc(func(p []byte) (int, error) { cancel(why); return len(p), nil })
	err := client.Run(ctx, Command{Line: "echo started; exec sleep 60", Stdout: started})
	require.Equal(t, why, err)
	require.NoError(t, client.Run(t.Context(), Command{Line: "true"}))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestRunStreamsThatFail(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	full := errors.New("disk full")
	err := dial(t, login).Run(t.Context(), Command{Line: "yes", Stdout: writerFunc(func([]byte) (int, error) { return 0, full })})
	require.ErrorIs(t, err, full)

	// Half of the input must not be taken for all of it.
	broken := errors.New("bad sector")
	var out bytes.Buffer
	half := io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) { return 0, broken }))
	err = dial(t, login).Run(t.Context(), Command{Line: "cat >/dev/null; echo taken", Stdin: half, Stdout: &out})
	require.ErrorIs(t, err, broken)
	require.Empty(t, out.String())
}

// F-3: whatever a session does, Run ends with its context, or by keepalive,
// and leaves no goroutine (TestMain).
func TestRunHostileF3(t *testing.T) {
	drain := func(requests <-chan *ssh.Request) {
		for r := range requests {
			if r.WantReply {
				_ = r.Reply(true, nil)
			}
		}
	}
	for name, c := range map[string]struct {
		session func(ssh.NewChannel)
		want    error
	}{
		"channel never opened": {func(ssh.NewChannel) {}, context.DeadlineExceeded},
		"exec never answered": {func(open ssh.NewChannel) {
			_, requests, _ := open.Accept()
			for range requests {
			}
		}, context.DeadlineExceeded},
		"never ends": {func(open ssh.NewChannel) { _, requests := accept(open); drain(requests) }, context.DeadlineExceeded},
		"endless stdout": {func(open ssh.NewChannel) {
			channel, requests := accept(open)
			go drain(requests)
			for block := make([]byte, 32<<10); ; {
				if _, err := channel.Write(block); err != nil {
					return
				}
			}
		}, context.DeadlineExceeded},
		"no exit status": {func(open ssh.NewChannel) {
			channel, requests := accept(open)
			go drain(requests)
			channel.Close()
		}, ErrNoExitStatus},
	} {
		t.Run(name, func(t *testing.T) {
			client := dial(t, hostileGuest(t, true, c.session))
			client.grace = 50 * time.Millisecond
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := client.Run(limit(t, 300*time.Millisecond), Command{Line: "x", Stdin: strings.NewReader("in"), Stdout: io.Discard})
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, c.want)
			require.Less(t, after.HeapInuse, before.HeapInuse+64<<20)
		})
	}
}

// No window is ever given: input does not move.
func TestRunNoWindowF3(t *testing.T) {
	client := dial(t, hostileGuest(t, true, func(open ssh.NewChannel) { accept(open) }))
	client.grace = 50 * time.Millisecond
	err := client.Run(limit(t, 300*time.Millisecond), Command{Line: "x", Stdin: bytes.NewReader(make([]byte, 16<<20))})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestRunConnectionLost(t *testing.T) {
	server, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	gone := writerFunc(func(p []byte) (int, error) { go server.Close(); return len(p), nil })
	err := client.Run(t.Context(), Command{Line: "echo started; sleep 60", Stdout: gone})
	require.Error(t, err)
	var exit *ExitError
	if !errors.As(err, &exit) { // the fake guest may still tell that it killed the command
		require.ErrorIs(t, err, ErrNoExitStatus)
	}
}

// F-3: a connection that is open and dead is noticed without a deadline.
func TestRunKeepaliveF3(t *testing.T) {
	client := dial(t, hostileGuest(t, false, func(open ssh.NewChannel) { accept(open) }))
	client.keepalive = 20 * time.Millisecond
	err := client.Run(t.Context(), Command{Line: "x"})
	require.ErrorIs(t, err, ErrSilent)
	require.ErrorContains(t, err, client.addr)
}

func TestRunKeepaliveAnswered(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	client.keepalive = 20 * time.Millisecond
	require.NoError(t, client.Run(t.Context(), Command{Line: "sleep 0.5"}))
}
