package qmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestExecute(t *testing.T) {
	const running = `{"status": "running", "running": true}`
	for name, answer := range map[string]func(s *stub, id string){
		"plain":               func(s *stub, id string) { s.say(reply(id, running)) },
		"events before reply": func(s *stub, id string) { s.say(event + event + reply(id, running)) },
		"events after reply":  func(s *stub, id string) { s.say(reply(id, running) + event) },
		"split":               func(s *stub, id string) { slowly(s, event+reply(id, running)) },
		"100k events": func(s *stub, id string) {
			if id == `"castra-1"` {
				s.say(strings.Repeat(event, 100_000))
			}
			s.say(reply(id, running))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialStub(t, serve(t, func(s *stub) {
				s.welcome()
				for command, id := s.hear(); command != ""; command, id = s.hear() {
					answer(s, id)
				}
			}))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for a busy machine
			defer cancel()
			for range 3 {
				var status struct {
					Status  string
					Running bool
				}
				require.NoError(t, c.Execute(ctx, "query-status", nil, &status))
				require.Equal(t, "running", status.Status)
				require.True(t, status.Running)
			}
			require.NoError(t, c.Execute(ctx, "stop", nil, nil))
		})
	}
}

func TestExecuteSendsArguments(t *testing.T) {
	lines := make(chan string, 1)
	c := dialStub(t, serve(t, func(s *stub) {
		s.welcome()
		line, _ := s.in.ReadString('\n')
		lines <- line
		s.say(reply(`"castra-1"`, `"two\r\nlines"`))
		s.silent()
	}))
	text, err := c.HumanMonitor(t.Context(), `info "usernet"`)
	require.NoError(t, err)
	require.Equal(t, "two\r\nlines", text)
	require.JSONEq(t, `{"execute":"human-monitor-command","arguments":{"command-line":"info \"usernet\""},"id":"castra-1"}`, <-lines)
}

func TestExecuteRefused(t *testing.T) {
	c := dialStub(t, serve(t, func(s *stub) {
		s.welcome()
		for command, id := s.hear(); command != ""; command, id = s.hear() {
			switch command {
			case "nope":
				s.say(`{"id": ` + id + `, "error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}` + "\r\n")
			case "unparsed": // QEMU cannot repeat an id it did not understand
				s.say(`{"error": {"class": "GenericError", "desc": "JSON parse error"}}` + "\r\n")
			case "wordless":
				s.say(`{"id": ` + id + `, "error": {}}` + "\r\n")
			default:
				s.say(reply(id, "{}"))
			}
		}
	}))
	for command, want := range map[string]Error{
		"nope":     {"nope", "CommandNotFound", "The command nope has not been found"},
		"unparsed": {"unparsed", "GenericError", "JSON parse error"},
		"wordless": {"wordless", "", ""},
	} {
		err := c.Execute(t.Context(), command, nil, nil)
		var refused *Error
		require.ErrorAs(t, err, &refused, command)
		require.Equal(t, want, *refused)
	}
	require.NoError(t, c.Execute(t.Context(), "query-status", nil, nil), "a refusal does not end the connection")
	requireAll(t, c.Execute(t.Context(), "nope", nil, nil), "QEMU refused nope: The command nope has not been found (CommandNotFound)")
}

func TestExecuteLongReplies(t *testing.T) {
	fits := strings.Repeat("x", 60<<10)
	c := dialStub(t, serve(t, func(s *stub) {
		s.welcome()
		_, id := s.hear()
		s.say(reply(id, `"`+fits+`"`))
		_, id = s.hear()
		s.say(reply(id, `"`+strings.Repeat(fits, 20)+`"`))
		s.silent()
	}))
	var text string
	require.NoError(t, c.Execute(t.Context(), "query-long", nil, &text))
	require.Equal(t, fits, text)
	requireAll(t, c.Execute(t.Context(), "query-longer", nil, &text), "query-longer on monitor ", "more than 64 KiB")
	requireAll(t, c.Execute(t.Context(), "query-status", nil, nil), "more than 64 KiB")
}

// TestExecuteExactLimit walks over the length at which the library under us
// gives up.
func TestExecuteExactLimit(t *testing.T) {
	envelope := len(reply(`"castra-1"`, `""`))
	for length, ok := range map[int]bool{maxLine - 1: true, maxLine: true, maxLine + 1: false} {
		t.Run(fmt.Sprint(length-maxLine), func(t *testing.T) {
			c := dialStub(t, serve(t, func(s *stub) {
				s.welcome()
				_, id := s.hear()
				s.say(reply(id, `"`+strings.Repeat("x", length-envelope)+`"`))
				s.silent()
			}))
			err := c.Execute(t.Context(), "query-long", nil, nil)
			require.Equal(t, ok, err == nil, "%v", err)
		})
	}
}

func TestExecuteStreamBreaks(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(s *stub, id string)
		text   string
	}{
		"closes":                {func(*stub, string) {}, "connection ended"},
		"closes in a line":      {func(s *stub, id string) { s.say(reply(id, "{}")[:12]) }, "connection ended"},
		"garbage":               {func(s *stub, _ string) { s.say("\x00\x01\n"); s.silent() }, "does not speak QMP"},
		"reply to another":      {func(s *stub, _ string) { s.say(reply(`"castra-7"`, "{}")); s.silent() }, "answered another command"},
		"reply with numeric id": {func(s *stub, _ string) { s.say(reply("1", "{}")); s.silent() }, "answered another command"},
		"reply without id":      {func(s *stub, _ string) { s.say(`{"return": {}}` + "\n"); s.silent() }, "answered another command"},
		"neither":               {func(s *stub, id string) { s.say(`{"id": ` + id + "}\n"); s.silent() }, "neither event nor reply"},
	} {
		t.Run(name, func(t *testing.T) {
			client := dialStub(t, serve(t, func(s *stub) {
				s.welcome()
				_, id := s.hear()
				c.answer(s, id)
			}))
			requireAll(t, client.Execute(t.Context(), "system_powerdown", nil, nil), "system_powerdown on monitor", c.text)
			requireAll(t, client.Execute(t.Context(), "query-status", nil, nil), "query-status on monitor", c.text)
		})
	}
}

// TestExecuteTwoRepliesInOneWrite: the second reply must not be taken for the
// answer to the next command.
func TestExecuteTwoRepliesInOneWrite(t *testing.T) {
	c := dialStub(t, serve(t, func(s *stub) {
		s.welcome()
		_, id := s.hear()
		s.say(reply(id, `"first"`) + reply(id, `"second"`))
		s.silent()
	}))
	var text string
	require.NoError(t, c.Execute(t.Context(), "one", nil, &text))
	require.Equal(t, "first", text)
	require.Error(t, c.Execute(t.Context(), "two", nil, &text))
	require.Equal(t, "first", text)
}

func TestExecuteBadArguments(t *testing.T) {
	c := dialStub(t, serve(t, answering))
	requireAll(t, c.Execute(t.Context(), "x", func() {}, nil), "encode arguments")
	var number int
	requireAll(t, c.Execute(t.Context(), "query-status", nil, &number), "decode reply")
	require.NoError(t, c.Execute(t.Context(), "query-status", nil, nil), "neither ends the connection")
}

func answering(s *stub) {
	s.welcome()
	for command, id := s.hear(); command != ""; command, id = s.hear() {
		s.say(reply(id, `"`+command+`"`))
	}
}

func TestExecuteTimeout(t *testing.T) {
	late := make(chan struct{})
	c := dialStub(t, serve(t, func(s *stub) {
		s.welcome()
		_, id := s.hear()
		<-late
		s.say(reply(id, "{}"))
		s.silent()
	}))
	err := c.Execute(soon(t), "query-status", nil, nil)
	require.True(t, isTimeout(err), "%v", err)
	close(late)
	err = c.Execute(t.Context(), "query-uuid", nil, nil)
	require.True(t, isTimeout(err), "the first cause stays: %v", err)
	requireAll(t, err, "query-uuid on monitor")
}

func TestExecuteEndedContextSendsNothing(t *testing.T) {
	c := dialStub(t, serve(t, answering))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.Execute(ended, "quit", nil, nil), context.Canceled)
	require.NoError(t, c.Execute(t.Context(), "query-status", nil, nil))
}

func TestExecuteWaitingTurnHeedsContext(t *testing.T) {
	heard, release := make(chan struct{}), make(chan struct{})
	c := dialStub(t, serve(t, func(s *stub) {
		s.welcome()
		_, id := s.hear()
		close(heard)
		<-release
		s.say(reply(id, "{}"))
		s.silent()
	}))
	var first sync.WaitGroup
	var firstErr error
	first.Go(func() { firstErr = c.Execute(t.Context(), "slow", nil, nil) })
	<-heard
	err := c.Execute(soon(t), "query-status", nil, nil)
	require.True(t, isTimeout(err), "%v", err)
	requireAll(t, err, "another command is running")
	close(release)
	first.Wait()
	require.NoError(t, firstErr, "the waiter's end does not disturb the one that runs")
}

func TestExecuteConcurrently(t *testing.T) {
	c := dialStub(t, serve(t, func(s *stub) {
		s.welcome()
		for command, id := s.hear(); command != ""; command, id = s.hear() {
			s.say(event + reply(id, `"`+command+`"`) + event)
		}
	}))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				var got string
				want := fmt.Sprintf("command-%d-%d", i, j)
				if err := c.Execute(context.Background(), want, nil, &got); err != nil || got != want {
					t.Errorf("got %q, want %q: %v", got, want, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestCloseWhileExecuting(t *testing.T) {
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			heard := make(chan struct{})
			c := dialStub(t, serve(t, func(s *stub) { s.welcome(); s.hear(); close(heard); s.silent() }))
			result := make(chan error, 1)
			go func() { result <- c.Execute(context.Background(), "query-status", nil, nil) }()
			<-heard
			require.NoError(t, c.Close())
			require.ErrorIs(t, <-result, net.ErrClosed)
			require.NoError(t, c.Close())
			require.ErrorIs(t, c.Execute(t.Context(), "query-status", nil, nil), net.ErrClosed)
		})
	}
}

func TestCancelWhileEventsFlood(t *testing.T) {
	c := dialStub(t, serve(t, func(s *stub) {
		s.welcome()
		for {
			if _, err := s.Write([]byte(event)); err != nil {
				return
			}
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	require.ErrorIs(t, c.Execute(ctx, "query-status", nil, nil), context.Canceled)
}

func TestDefaultBound(t *testing.T) {
	ctx, cancel := bounded(context.Background())
	defer cancel()
	deadline, ok := ctx.Deadline()
	require.True(t, ok)
	require.LessOrEqual(t, time.Until(deadline), defaultBound)

	own, cancelOwn := context.WithTimeout(context.Background(), time.Hour)
	defer cancelOwn()
	kept, cancelKept := bounded(own)
	defer cancelKept()
	require.Equal(t, own, kept)
	require.False(t, errors.Is(kept.Err(), context.Canceled))
}
