package castra

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/bootstrap"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/qmp"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/soak"
)

// hostileText is every sequence of a hostile guest, a line each.
func hostileText() string {
	return "line " + strings.Join(qemutest.Sequences(), "\nline ") + "\n"
}

// hostile makes the world one whose guest prints the sequences in its bootstrap,
// which fails, and on its serial port, as does its QEMU.
func (w *world) hostile() {
	w.Helper()
	file := filepath.Join(w.TempDir(), "hostile")
	require.NoError(w, os.WriteFile(file, []byte(hostileText()), 0o600))
	w.configure(patient, w.bootstrapped("web", fmt.Sprintf("cat %s\ncat %[1]s >&2\nexit 3", file)))
}

// spoilLogs has QEMU, the guest and the journal say the sequences.
func (w *world) spoilLogs() {
	w.Helper()
	l := w.layout()
	for path, text := range map[string]string{
		l.QEMULog("web-0"): hostileText(), l.SerialLog("web-0"): hostileText(),
		l.EventLog(): "\r{\"time\":\"2026-11-25T13:00:00.000Z\",\"type\":\"message\",\"workspace\":\"w\",\"vm\":\"web-0\",\"level\":\"info\",\"text\":\"raw \u009b2J \u202e \x7f\"}\n" + hostileText(),
	} {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(w, err)
		_, err = io.WriteString(f, text)
		require.NoError(w, errors.Join(err, f.Close()))
	}
}

// requireSafe: a terminal shows it as it is.
func requireSafe(t testing.TB, what, text string) {
	t.Helper()
	require.Equal(t, report.Sanitize(text), text, what)
}

// requireJSON: it is safe, and each value in it is read by others.
func requireJSON(t testing.TB, what, text string) {
	t.Helper()
	requireSafe(t, what, text)
	for dec := json.NewDecoder(strings.NewReader(text)); ; {
		var value any
		err := dec.Decode(&value)
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err, what)
	}
}

// F-2: nothing that a guest, QEMU or a file left behind says reaches a terminal
// as it is: by errors, events, logs, tables, nor as JSON, which stays JSON.
func TestSequencesSoak(t *testing.T) {
	require.GreaterOrEqual(t, len(qemutest.Sequences()), 60)
	w := newWorld(t, patient)
	w.hostile()
	p := w.open()
	var text, lines bytes.Buffer
	p.Reporter = both{report.NewText(&text, report.TextOptions{Verbose: true}), report.NewJSON(&lines)}
	err := p.Up(t.Context(), UpOptions{})
	require.ErrorAs(t, err, new(*bootstrap.StepError))
	w.spoilLogs()

	shown := map[string]string{"error for mage": exit(err).Error(), "error": err.Error(), "events": text.String()}
	asJSON := map[string]string{"events": lines.String()}
	status, err := w.open().Status(t.Context())
	require.NoError(t, err)
	shown["status"] = w.statusText()
	asJSON["status"] = shownBy(t, status)
	for name, write := range map[string]func(io.Writer) error{
		"logs": func(out io.Writer) error { return w.open().Logs(t.Context(), LogOptions{}, out) },
		"bus":  func(out io.Writer) error { return w.open().Bus(t.Context(), BusOptions{Tail: 10000}, out) },
	} {
		var out bytes.Buffer
		require.NoError(t, write(&out), name)
		shown[name] = out.String()
	}
	var bus bytes.Buffer
	require.NoError(t, w.open().Bus(t.Context(), BusOptions{Tail: 10000, JSON: true}, &bus))
	asJSON["bus"] = bus.String()
	_, err = (&Session{p: w.open()}).Output(t.Context(), "web", "printf 'over\\rwritten\\033[2J' >&2; exit 3")
	shown["error of Output"] = err.Error()

	for name, s := range shown {
		requireSafe(t, name, s)
		require.Regexp(t, `\\u202e|\\x1b\[2J`, s, "%s: it is the hostile text that is shown", name)
	}
	for name, s := range asJSON {
		requireJSON(t, name, s)
		require.Contains(t, s, `\u202e`, name)
	}
	soak.AtLeast(t, "F-2", "control sequences shown safe by each of 9 ways to a terminal", 60, float64(len(qemutest.Sequences())))
	w.down()
}

// both tells two.
type both [2]event.Reporter

func (b both) Report(r event.Record) {
	b[0].Report(r)
	b[1].Report(r)
}

// shownBy is what a target prints of a result with -json.
func shownBy(t *testing.T, result any) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	stdout, yes := os.Stdout, true
	os.Stdout = out
	err = show(nil, result, &yes, nil)
	os.Stdout = stdout
	require.NoError(t, errors.Join(err, out.Close()))
	return string(mustRead(t, out.Name()))
}

// Errors with words of the guest or QEMU in them are safe wherever they are printed.
func TestErrorsAreSafe(t *testing.T) {
	for _, said := range qemutest.Sequences() {
		for _, err := range []error{
			&qmp.Error{Command: "cont", Class: "GenericError", Desc: said}, &CloudInitError{said}, errors.New(said),
			&guest.ExitError{Status: 137, Signal: said}, &bootstrap.StepError{VM: "web-0", Step: "apply", Tail: []string{said}, Err: errors.New(said)},
		} {
			inVM := &VMError{Op: "up", VM: "web-0", Phase: "boot", Err: err, Next: said}
			requireSafe(t, "VMError", inVM.Error())
			requireSafe(t, "exit", exit(errors.Join(err, inVM)).Error())
		}
	}
}

// The same through mage itself, which prints errors as they are.
func testSequencesThroughMage(t *testing.T) {
	w := mageWorld(t)
	w.hostile()
	r := w.mage("root", "up")
	require.Equal(t, exitFailed, r.status)
	requireSafe(t, "up", r.stdout+r.stderr)
	require.Contains(t, r.stderr, `\x1b[2J`)
	w.spoilLogs()
	for _, args := range [][]string{{"status"}, {"logs"}, {"bus"}, {"copy", "web:/no/\x1b]0;t\x07/such", "."}} {
		r := w.mage("root", args...)
		requireSafe(t, args[0], r.stdout+r.stderr)
	}
	for _, args := range [][]string{{"status", "-json"}, {"bus", "-json"}} {
		r := w.mage("root", args...)
		require.Zero(t, r.status, r.stderr)
		requireJSON(t, args[0], r.stdout)
	}
	t.Setenv("CASTRA_JSON", "1")
	r = w.mage("root", "up")
	require.Equal(t, exitFailed, r.status)
	requireSafe(t, "up", r.stderr)
	w.down()
}
