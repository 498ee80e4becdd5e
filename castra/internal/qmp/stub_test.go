package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "stub"}, "capabilities": ["oob"]}}` + "\r\n"

// event is what QEMU may send at any time.
const event = `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RTC_CHANGE", "data": {"offset": 1}}` + "\r\n"

// stub is one connection of a stub QMP server.
type stub struct {
	net.Conn
	in *bufio.Reader
}

func (s *stub) say(text string) { _, _ = s.Write([]byte(text)) }

// hear reads a command and returns its name, and its id as JSON; both are "" at
// the end of the stream.
func (s *stub) hear() (command, id string) {
	line, err := s.in.ReadBytes('\n')
	if err != nil {
		return "", ""
	}
	var c struct {
		Execute string          `json:"execute"`
		ID      json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return "unreadable: " + string(line), ""
	}
	return c.Execute, string(c.ID)
}

// welcome completes an ordinary handshake.
func (s *stub) welcome() {
	s.say(greeting)
	s.hear()
	s.say(`{"return": {}}` + "\r\n")
}

// silent waits until the client has gone.
func (s *stub) silent() {
	for command, _ := s.hear(); command != ""; command, _ = s.hear() {
	}
}

// reply is the answer to the command with the given id.
func reply(id, value string) string { return `{"return": ` + value + `, "id": ` + id + "}\r\n" }

// serve runs a stub server until the test ends and returns its socket. Each
// connection is served on its own.
func serve(t *testing.T, each func(*stub)) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "m.qmp")
	serveAt(t, path, each)
	return path
}

func serveAt(t *testing.T, path string, each func(*stub)) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			each(&stub{conn, bufio.NewReader(conn)})
			stop()
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		cancel()
		listener.Close()
		<-ended
		goleak.VerifyNone(t)
	})
}

// shortDir is a directory in which socket paths fit.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qmp")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func dialStub(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// soon is a context that ends before a test would notice.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func requireAll(t *testing.T, err error, parts ...string) {
	t.Helper()
	require.Error(t, err)
	for _, part := range parts {
		require.True(t, strings.Contains(err.Error(), part), "%q is not in: %v", part, err)
	}
}

// isTimeout says that ctx's end is among err's causes.
func isTimeout(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
