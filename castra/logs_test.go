package castra

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

func (w *world) logs(o LogOptions) string {
	w.Helper()
	var out bytes.Buffer
	require.NoError(w, w.open().Logs(w.Context(), o, &out))
	return out.String()
}

func TestLogs(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.write("bootstrap/web/run.sh", "echo from the script; printf '\\033]0;title\\007'")
	require.Contains(t, w.logs(LogOptions{}), "no logs yet: web-0, db-0")
	w.up()
	serial := w.layout().SerialLog("web-0")
	appendTo(t, serial, "\nbooting\x1b[2J\r\nlogin: \n")
	appendTo(t, w.layout().SerialLog("db-0"), "\nother\n")
	all := w.logs(LogOptions{})
	require.Contains(t, all, "web-0 serial    booting\\x1b[2J\n", "control characters are shown, not sent")
	require.Contains(t, all, "db-0 serial     other\n")
	require.Contains(t, all, "web-0 bootstrap from the script\n")
	require.Contains(t, all, "web-0 bootstrap --- applied; ")
	require.NotContains(t, all, "\x1b")
	require.NotContains(t, all, "\x07")

	one := w.logs(LogOptions{VM: "web", Kinds: []string{"serial"}, Tail: 1})
	require.Equal(t, "web-0 serial    login: \n", one)
	require.Contains(t, w.logs(LogOptions{Color: true}), "\x1b[")
	raw := w.logs(LogOptions{VM: "web", Kinds: []string{"serial"}, Raw: true})
	require.Contains(t, raw, "booting\x1b[2J")

	err := w.open().Logs(t.Context(), LogOptions{VM: "nosuch"}, io.Discard)
	require.Equal(t, exitNoInput, exitStatus(err))
	require.ErrorContains(t, err, "web-0, db-0")
	require.Equal(t, exitUsage, exitStatus(w.open().Logs(t.Context(), LogOptions{Kinds: []string{"x"}}, io.Discard)))
	w.down()
	require.Contains(t, w.logs(LogOptions{}), "web-0 serial    booting", "they outlive the VM")
	w.up()
	require.NotContains(t, w.logs(LogOptions{}), "booting", "the log of this run is not that of the last")
	require.FileExists(t, serial+".1")
	w.down()
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString(text)
	require.NoError(t, err)
}

// lines hands on what is written, for tests that wait for it.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) has(text string) func() bool {
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return strings.Contains(l.text.String(), text)
	}
}

func TestFollowLogs(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	script := w.write("bootstrap/web/run.sh", "echo first run")
	w.up()
	ctx, cancel := w.cancellable()
	out := &lines{}
	ended := make(chan error, 1)
	go func() { ended <- w.open().Logs(ctx, LogOptions{Follow: true}, out) }()
	require.Eventually(t, out.has("web-0 bootstrap first run\n"), patience, poll)
	appendTo(t, w.layout().SerialLog("web-0"), "\na new line\n")
	require.Eventually(t, out.has("web-0 serial    a new line\n"), patience, poll)
	require.NoError(t, os.Truncate(w.layout().SerialLog("web-0"), 0))
	appendTo(t, w.layout().SerialLog("web-0"), "after the cut\n")
	require.Eventually(t, out.has("web-0 serial    after the cut\n"), patience, poll)
	require.NoError(t, os.WriteFile(script, []byte("echo second run"), 0o700))
	w.up()
	require.Eventually(t, out.has("web-0 bootstrap second run\n"), patience, poll)
	w.down() // the VM goes, and comes back with new logs
	w.up()
	appendTo(t, w.layout().SerialLog("web-0"), "\nof the next run\n")
	require.Eventually(t, out.has("web-0 serial    of the next run\n"), patience, poll)
	cancel()
	require.NoError(t, <-ended)
	w.down()
}

// brokenPipe is a reader that has gone.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestFollowEndsWithItsReader(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.write("bootstrap/web/run.sh", "echo line")
	w.up()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.ErrorContains(t, w.open().Logs(ctx, LogOptions{Follow: true}, brokenPipe{}), "broken pipe")
	require.NoError(t, ctx.Err(), "it did not wait for more")
	w.down()
}

func TestBus(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	var out bytes.Buffer
	require.NoError(t, w.open().Bus(t.Context(), BusOptions{}, &out))
	require.Contains(t, out.String(), "nothing is on record")
	w.up()
	out.Reset()
	require.NoError(t, w.open().Bus(t.Context(), BusOptions{}, &out))
	require.Contains(t, out.String(), "web-0")
	require.Contains(t, out.String(), "ready")
	require.Contains(t, out.String(), "vm.launched")

	out.Reset()
	require.NoError(t, w.open().Bus(t.Context(), BusOptions{JSON: true, Tail: 1000}, &out))
	first, rest, _ := strings.Cut(out.String(), "\n")
	var session SessionRecord
	require.NoError(t, json.Unmarshal([]byte(first), &session))
	require.Equal(t, "session", session.Type)
	require.Equal(t, w.running(), []int{session.VMs["web-0"].PID})
	require.NotEmpty(t, session.VMs["web-0"].SSH.HostKey)
	var kinds []event.Kind
	for _, r := range readRecords(t, strings.NewReader(rest)) {
		kinds = append(kinds, r.Event.Kind())
	}
	require.Contains(t, kinds, event.Kind("vm.ready"))
	require.Equal(t, string(mustRead(t, w.layout().EventLog())), rest)

	// A line cut short by a crash, and one of a later Castra, hide nothing.
	appendTo(t, w.layout().EventLog(), "{\"time\":\"2026-01-02T03:04:05.000Z\",\"type\":\"vm.teleported\",\"workspace\":\"x\"}\n{\"time\":\n")
	out.Reset()
	require.NoError(t, w.open().Bus(t.Context(), BusOptions{Tail: 2}, &out))
	require.Contains(t, out.String(), "vm.teleported")
	out.Reset()
	require.NoError(t, w.open().Bus(t.Context(), BusOptions{JSON: true}, &out))
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		require.True(t, json.Valid([]byte(line)), line)
	}
	ctx, cancel := w.cancellable()
	stream := &lines{}
	ended := make(chan error, 1)
	go func() { ended <- w.open().Bus(ctx, BusOptions{JSON: true, Follow: true, Tail: -1}, stream) }()
	require.Eventually(t, stream.has(`"type":"session"`), patience, poll)
	time.Sleep(100 * time.Millisecond)
	w.down()
	require.Eventually(t, stream.has(`"type":"vm.overlay.discarded"`), patience, poll)
	cancel()
	require.NoError(t, <-ended)
}
