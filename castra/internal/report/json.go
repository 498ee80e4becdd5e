package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf16"

	"castra.example/castra/castra/event"
)

// NewJSON returns a Reporter that writes one Record a line. The lines are safe
// on a terminal: what Sanitize would show as an escape is a JSON escape here,
// so it reads back as it was. Of what a VM is waited for, one Waiting in 5 seconds
// is written, from the fifth on. It may be shared by several Emitters. Write
// errors are ignored: reporting must not stop the work.
func NewJSON(w io.Writer) event.Reporter { return &jsonLines{w: w, pace: pace{}} }

type jsonLines struct {
	mu   sync.Mutex
	w    io.Writer
	pace pace
}

func (j *jsonLines) Report(r event.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e, ok := r.Event.(event.Waiting); ok && !j.pace.due(r.Workspace, e, false) {
		return
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(r) != nil {
		return
	}
	_, _ = io.WriteString(j.w, EscapeJSON(b.String()))
}

// EscapeJSON escapes in a JSON text what encoding/json leaves raw and a terminal
// might obey: the value stays the same. Outside of strings JSON has no such
// characters but for CR, which is a space there.
func EscapeJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\r':
			b.WriteByte(' ')
		case !unsafeRune(r):
			b.WriteRune(r)
		case utf16.RuneLen(r) == 2:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
