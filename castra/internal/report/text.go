package report

import (
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"castra.example/castra/castra/event"
)

// Rules of the text:
//
//   - One line a fact: what happens, how long it may take, what came out. A
//     fact that another line will tell anyway is quiet: only Verbose shows it.
//   - The VM's name stands first, in a column; lines about no VM start at the
//     left edge. Text of several lines goes on below, indented behind "| ", so
//     no guest can forge a line of ours.
//   - The error of a command is told by whoever ran it (mage prints it), so
//     here it is quiet; what fails on the way, warnings and hints are not.
//   - Colour marks the few words that matter, never whole paragraphs: green
//     for done, yellow for a warning, red for a failure, faint for waiting.
//   - On a terminal waiting is one line that changes in place (see live.go);
//     elsewhere it is a line now and then.
//   - Nothing foreign is written before Sanitize, and a line is one Write.

// TextOptions say where the text goes.
type TextOptions struct {
	Color   bool // mark with SGR colours
	Width   int  // columns of the terminal; 0 = no terminal, nothing is rewritten
	Verbose bool // tell every event
}

// NewText returns a Reporter for people. It may be shared by several Emitters.
// Write errors are ignored: reporting must not stop the work.
func NewText(w io.Writer, o TextOptions) event.Reporter {
	return &text{w: w, o: o, vms: map[string]*vmState{}, images: map[string]imageState{}}
}

type text struct {
	mu     sync.Mutex
	w      io.Writer
	o      TextOptions
	column int // width of the longest VM name so far
	live   string
	bar    string
	vms    map[string]*vmState
	images map[string]imageState
	gone   []tally
}

// vmState is what later lines about a VM need to know of earlier events.
type vmState struct {
	script  string         // base name of the bootstrap script
	waiting *event.Waiting // nil: not waited for
	printed event.Waiting  // last waiting line that was not rewritten
}

// line is one fact, ready to be laid out.
type line struct {
	style string   // SGR parameters for head
	head  string   // the words that matter
	rest  string   // may have several lines
	notes []string // lines of their own below
	raw   bool     // foreign output: every line stands behind "| "
	quiet bool
}

func (t *text) Report(r event.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	vm, state := t.enter(r.Event)
	switch e := r.Event.(type) {
	case event.Waiting:
		t.wait(e, state)
	case event.ImageProgress:
		t.progress(r.Time, e)
	case event.ImageVerified:
		t.put(vm, t.verified(e))
	case event.Cleanup:
		t.put(vm, line{rest: "removed " + e.What + " " + e.Path + sized(e.Bytes), quiet: true})
		t.tally(e)
	case event.Summary:
		t.leave()
		t.put(vm, t.summary(e))
	case event.CommandCompleted:
		t.leave()
		t.put(vm, line{rest: e.Command + ": completed in " + ms(e.ElapsedMS), quiet: true})
	case event.CommandFailed:
		t.leave()
		t.put(vm, t.failed(e))
	case event.BootstrapStep:
		t.put(vm, stepLine(e, state.script))
	default:
		t.put(vm, phrase(e))
	}
	t.redraw()
}

// enter notes the event's VM and returns its name and state.
func (t *text) enter(e event.Event) (string, *vmState) {
	if _, ok := e.(event.CommandAccepted); ok {
		clear(t.vms)
		clear(t.images)
	}
	vm := e.Subject()
	s := t.vms[vm]
	if s == nil {
		s = &vmState{}
	}
	if vm != "" {
		t.vms[vm] = s
		t.column = max(t.column, utf8.RuneCountInString(Sanitize(vm)))
	}
	if planned, ok := e.(event.BootstrapPlanned); ok && planned.Script != "" {
		s.script = filepath.Base(planned.Script)
	}
	if _, ok := e.(event.Waiting); !ok {
		s.waiting = nil
	}
	return vm, s
}

// leave ends what a command leaves open: nothing is waited for any more, and
// what was removed is told.
func (t *text) leave() {
	t.bar = ""
	for _, s := range t.vms {
		s.waiting = nil
	}
	t.put("", t.removed())
}

// failed says no more than that, unless nobody else may tell the error.
func (t *text) failed(e event.CommandFailed) line {
	l := line{style: red, head: e.Command + " failed", rest: " after " + ms(e.ElapsedMS)}
	if t.o.Verbose {
		l.rest += because(e.Error)
	}
	return l
}

// summary adds the command that is most useful next.
func (t *text) summary(e event.Summary) line {
	rest := " " + e.Text
	if e.ElapsedMS > 0 {
		rest += ", " + ms(e.ElapsedMS)
	}
	var next []string
	switch e.Command {
	case "up":
		next = append(next, "mage status")
		if len(t.vms) > 0 {
			next = append(next, "mage exec "+slices.Min(slices.Collect(maps.Keys(t.vms)))+` "uname -a"`)
		}
		next = append(next, "mage down")
	case "down", "clean":
		next = append(next, "mage up")
	}
	if len(next) > 0 {
		rest += ". Next: " + strings.Join(next, ", ")
	}
	return line{style: bold, head: e.Command + ":", rest: rest}
}

// put writes a line, unless it is empty or too quiet.
func (t *text) put(vm string, l line) {
	if l.head+l.rest == "" && !l.raw || l.quiet && !t.o.Verbose {
		return
	}
	var b strings.Builder
	if t.live != "" {
		b.WriteString(eraseLine)
		t.live = ""
	}
	first, other := "", "  "
	if vm = Sanitize(vm); vm != "" {
		first = t.paint(nameColour(vm), vm) + pad("", t.column-utf8.RuneCountInString(vm)+2)
		other = pad("", t.column+2)
	}
	if l.raw && !t.o.Verbose {
		l.rest = sgr.ReplaceAllString(l.rest, "")
	}
	head := Sanitize(l.head)
	for i, s := range paragraphs(l.head + l.rest) {
		switch {
		case i > 0:
			s = other + t.paint(faint, "| ") + s
		case l.raw:
			s = first + t.paint(faint, "| ") + s
		case strings.HasPrefix(s, head):
			s = first + t.paint(l.style, head) + s[len(head):]
		default:
			s = first + s
		}
		b.WriteString(strings.TrimRight(s, " ") + "\n")
	}
	for _, note := range l.notes {
		b.WriteString(other + strings.Join(paragraphs(note), "\n"+other) + "\n")
	}
	_, _ = io.WriteString(t.w, b.String())
}

// sgr are the colours that scripts print: harmless to leave out, and only noise
// when shown as escapes.
var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// paragraphs sanitises and splits into lines; line ends of DOS and of serial
// ports count as plain ones.
func paragraphs(s string) []string {
	s = strings.TrimRight(strings.ReplaceAll(s, "\r\n", "\n"), "\r\n")
	return strings.Split(Sanitize(s), "\n")
}

const (
	bold   = "1"
	faint  = "2"
	red    = "1;31"
	green  = "32"
	yellow = "33"
)

func (t *text) paint(style, s string) string {
	if !t.o.Color || style == "" || s == "" {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

// nameColour is the same for a VM in every run, and differs between
// neighbouring replicas. Green, yellow and red keep their meaning.
func nameColour(vm string) string {
	sum := 0
	for _, b := range []byte(vm) {
		sum += int(b)
	}
	colours := []string{"36", "35", "94", "96", "95"} // dark blue is unreadable on black
	return colours[sum%len(colours)]
}
