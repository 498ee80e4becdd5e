package report

import (
	"strings"

	"castra.example/castra/castra/event"
)

// kindColumn has room for the name of every kind.
var kindColumn = func() (widest int) {
	for _, kind := range event.Kinds() {
		widest = max(widest, len(kind))
	}
	return widest
}()

// History is a record as one clean line: local time with milliseconds, the VM or
// "-", the kind, and what happened in words.
func History(r event.Record) string {
	if r.Event == nil {
		return ""
	}
	vm := flat(r.Event.Subject())
	if vm == "" {
		vm = "-"
	}
	l := phrase(r.Event)
	details := l.head + l.rest
	if out, ok := r.Event.(event.BootstrapOutput); ok {
		details = out.Stream + ": " + sgr.ReplaceAllString(out.Line, "")
	}
	for _, note := range l.notes {
		details += "; " + note
	}
	return strings.TrimRight(strings.Join([]string{
		r.Time.Local().Format("2006-01-02 15:04:05.000"), pad(vm, 8), pad(string(r.Event.Kind()), kindColumn), flat(details),
	}, "  "), " ")
}
