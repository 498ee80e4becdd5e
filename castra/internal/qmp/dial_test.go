package qmp

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDialRefusesWhatIsNoMonitor(t *testing.T) {
	dir := shortDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("file"), []byte("x"), 0o600))
	require.NoError(t, os.Mkdir(at("dir"), 0o700))
	require.NoError(t, os.Symlink(at("file"), at("link")))
	require.NoError(t, syscall.Mkfifo(at("fifo"), 0o600))
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: at("stale")})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())

	for name, c := range map[string]struct {
		text string
		is   error
	}{
		"file":    {"not a socket but a regular file", nil},
		"dir":     {"not a socket but a directory", nil},
		"link":    {"not a socket but a symbolic link", nil},
		"fifo":    {"not a socket but a named pipe", nil},
		"stale":   {"connection refused", syscall.ECONNREFUSED},
		"missing": {"no such file", fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(t.Context(), at(name))
			requireAll(t, err, "monitor "+at(name)+": ", c.text)
			require.Equal(t, 1, strings.Count(err.Error(), at(name)), "the path is named once: %v", err)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
}

func TestDialFaultyServer(t *testing.T) {
	for name, c := range map[string]struct {
		server func(*stub)
		text   string
	}{
		"closes at once":         {func(*stub) {}, "connection ended"},
		"garbage":                {func(s *stub) { s.say("hello there\r\n"); s.silent() }, "does not speak QMP"},
		"JSON that is no object": {func(s *stub) { s.say("[1,2]\r\n"); s.silent() }, "does not speak QMP"},
		"reply for a greeting":   {func(s *stub) { s.say(`{"return": {}}` + "\n"); s.silent() }, "does not speak QMP"},
		"endless line":           {func(s *stub) { s.say(strings.Repeat("x", 10<<20)); s.silent() }, "more than 64 KiB"},
		"odd version":            {func(s *stub) { s.say(`{"QMP": {"version": "seven"}}` + "\n"); s.silent() }, "handshake"},
		"closes after greeting":  {func(s *stub) { s.say(greeting) }, "handshake: "},
		"garbage for capabilities": {func(s *stub) {
			s.say(greeting)
			s.hear()
			s.say("]\r\n")
			s.silent()
		}, "does not speak QMP"},
		"capabilities refused": {func(s *stub) {
			s.say(greeting)
			s.hear()
			s.say(`{"error": {"class": "GenericError", "desc": "not today"}}` + "\n")
			s.silent()
		}, "QEMU refused qmp_capabilities: not today (GenericError)"},
		"capabilities answered with another id": {func(s *stub) {
			s.say(greeting)
			s.hear()
			s.say(reply(`"x"`, "{}"))
			s.silent()
		}, "answered another command"},
		"capabilities answered with nothing": {func(s *stub) {
			s.say(greeting)
			s.hear()
			s.say("{}\r\n")
			s.silent()
		}, "neither event nor reply"},
	} {
		t.Run(name, func(t *testing.T) {
			path := serve(t, c.server)
			_, err := Dial(t.Context(), path)
			requireAll(t, err, "monitor "+path, c.text)
			require.False(t, errors.Is(err, ErrBusy))
		})
	}
}

func TestDialBusy(t *testing.T) {
	for name, server := range map[string]func(*stub){
		"banner withheld": func(s *stub) { s.silent() },
		"events only": func(s *stub) {
			for range 100_000 {
				s.say(event)
			}
			s.silent()
		},
		"half a banner": func(s *stub) { s.say(greeting[:30]); s.silent() },
	} {
		t.Run(name, func(t *testing.T) {
			path := serve(t, server)
			_, err := Dial(soon(t), path)
			require.ErrorIs(t, err, ErrBusy)
			requireAll(t, err, "monitor "+path)
		})
	}
}

func TestDialCapabilitiesWithheld(t *testing.T) {
	path := serve(t, func(s *stub) { s.say(greeting); s.silent() })
	_, err := Dial(soon(t), path)
	require.True(t, isTimeout(err), "%v", err)
	requireAll(t, err, "handshake: no reply")
}

func TestDialEndedContextIsNotBusy(t *testing.T) {
	ended, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err := Dial(ended, serve(t, func(s *stub) { s.welcome() }))
	require.True(t, isTimeout(err), "%v", err)
	require.False(t, errors.Is(err, ErrBusy))
}

func TestDialCanceled(t *testing.T) {
	path := serve(t, func(s *stub) { s.silent() })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := Dial(ctx, path)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, errors.Is(err, ErrBusy))
}

func TestDialOddButValidHandshakes(t *testing.T) {
	for name, server := range map[string]func(*stub){
		"events before the greeting": func(s *stub) { s.say(event + event); s.welcome(); s.silent() },
		"events after the greeting": func(s *stub) {
			s.say(greeting + event)
			s.hear()
			s.say(event + `{"return": {}}` + "\r\n" + event)
			s.silent()
		},
		"blank lines": func(s *stub) {
			s.say("\r\n" + greeting + "\n")
			s.hear()
			s.say("\n" + `{"return": {}}` + "\n\n")
			s.silent()
		},
		"byte by byte": func(s *stub) {
			slowly(s, greeting)
			s.hear()
			slowly(s, `{"return": {}}`+"\r\n")
			s.silent()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialStub(t, serve(t, server))
			if runtime.GOOS == "linux" {
				require.Equal(t, os.Getpid(), c.Peer())
			}
		})
	}
}

func slowly(s *stub, text string) {
	for i := range len(text) {
		s.say(text[i : i+1])
	}
}

func TestDialLongPath(t *testing.T) {
	dir := filepath.Join(shortDir(t), strings.Repeat("d", 120))
	require.NoError(t, os.Mkdir(dir, 0o700))
	if runtime.GOOS != "linux" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "m"), nil, 0o600))
		_, _, err := socketAddress(filepath.Join(dir, "m"))
		requireAll(t, err, "limit of 103")
		return
	}
	f, err := os.Open(dir)
	require.NoError(t, err)
	defer f.Close()
	path := filepath.Join(dir, "m.qmp")
	short, release, err := socketAddress(path)
	require.NoError(t, err)
	defer release()
	serveAt(t, short, func(s *stub) { s.welcome(); s.silent() })
	dialStub(t, path)

	_, _, err = socketAddress(filepath.Join(dir, strings.Repeat("n", 100)))
	var long *PathTooLongError
	require.ErrorAs(t, err, &long)
	requireAll(t, err, "100 bytes")
	require.NotEmpty(t, long.Hint())
}

func TestAcceptOwnIsBounded(t *testing.T) {
	listener, release, err := privateListener()
	require.NoError(t, err)
	defer release()
	require.NoError(t, listener.SetDeadline(time.Now().Add(20*time.Millisecond)))
	_, err = acceptOwn(listener)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// strangerAddress tells the test binary, run again, where to intrude.
const strangerAddress = "CASTRA_TEST_QMP_STRANGER"

// TestStranger is the other process of TestAcceptOwnPassesStrangersBy.
func TestStranger(t *testing.T) {
	address := os.Getenv(strangerAddress)
	if address == "" {
		t.Skip("runs in a process of its own")
	}
	_, err := net.Dial("unix", address)
	require.NoError(t, err)
}

func TestAcceptOwnPassesStrangersBy(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere the directory keeps strangers out")
	}
	listener, release, err := privateListener()
	require.NoError(t, err)
	defer release()
	stranger := exec.Command(os.Args[0], "-test.run=^TestStranger$")
	stranger.Env = append(os.Environ(), strangerAddress+"="+listener.Addr().String())
	out, err := stranger.CombinedOutput()
	require.NoError(t, err, "%s", out)

	own, err := net.Dial("unix", listener.Addr().String())
	require.NoError(t, err)
	defer own.Close()
	accepted, err := acceptOwn(listener)
	require.NoError(t, err)
	defer accepted.Close()
	_, err = own.Write([]byte("x"))
	require.NoError(t, err)
	got := make([]byte, 1)
	_, err = accepted.Read(got)
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
}
