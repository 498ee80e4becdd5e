package report

import (
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

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
//   - On a terminal waiting and progress are a block that changes in place (see
//     live.go); elsewhere they are a line now and then.
//   - Nothing foreign is written before Sanitize, and an event is one Write.

// TextOptions say where the text goes.
type TextOptions struct {
	Color   bool // mark with SGR colours
	Width   int  // columns of the terminal; 0 = no terminal, nothing is rewritten
	Height  int  // its rows; 0 = unknown, taken to be enough
	Verbose bool // tell every event, but of waiting no more than every 5 seconds
}

// NewText returns a Reporter for people. It may be shared by several Emitters.
// Write errors are ignored: reporting must not stop the work.
func NewText(w io.Writer, o TextOptions) event.Reporter {
	return &text{w: w, o: o, scripts: map[string]string{}, waits: map[string]wait{}, gauges: map[string]gauge{}, pace: pace{}}
}

type text struct {
	mu      sync.Mutex
	w       io.Writer
	o       TextOptions
	out     strings.Builder   // what the event at hand makes us write
	column  int               // width of the longest VM name so far
	live    []string          // the live block as it stands on the terminal
	scripts map[string]string // VM to base name of its bootstrap script, "" = none known
	waits   map[string]wait   // by VM; on a terminal only
	gauges  map[string]gauge
	pace    pace
	gone    []tally
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
	vm := r.Event.Subject()
	t.enter(vm, r.Event)
	switch e := r.Event.(type) {
	case event.Waiting:
		t.wait(r, e)
	case event.ImageProgress:
		t.image(r.Time, e)
	case event.CopyProgress:
		t.copying(r.Time, e)
	case event.ImageVerified:
		t.put(vm, t.verified(e))
	case event.Cleanup:
		t.put(vm, phrase(e))
		t.tally(e)
	case event.Summary:
		t.leave()
		t.put(vm, t.summary(e))
	case event.CommandCompleted:
		t.leave()
		t.put(vm, phrase(e))
	case event.CommandFailed:
		t.leave()
		if !t.o.Verbose {
			e.Error = "" // whoever ran the command tells it
		}
		t.put(vm, phrase(e))
	case event.BootstrapStep:
		t.put(vm, stepLine(e, t.scripts[vm]))
	default:
		t.put(vm, phrase(e))
	}
	t.redraw(r.Time)
	if t.out.Len() > 0 {
		_, _ = io.WriteString(t.w, t.out.String())
		t.out.Reset()
	}
}

// enter notes what later lines need to know of an event.
func (t *text) enter(vm string, e event.Event) {
	if vm != "" {
		t.column = max(t.column, columns(flat(vm)))
		if _, known := t.scripts[vm]; !known {
			t.scripts[vm] = ""
		}
	}
	switch e := e.(type) {
	case event.CommandAccepted:
		clear(t.scripts)
		clear(t.waits)
		clear(t.gauges)
	case event.Waiting, event.CopyProgress, event.BootstrapOutput, event.Message:
		return // none of these ends a wait
	case event.BootstrapPlanned:
		if e.Script != "" {
			t.scripts[vm] = filepath.Base(e.Script)
		}
	}
	delete(t.waits, vm)
}

// leave ends what a command leaves open: nothing is waited for any more, and
// what was removed is told.
func (t *text) leave() {
	clear(t.waits)
	clear(t.gauges)
	t.put("", t.removed())
}

// summary adds the command that is most useful next.
func (t *text) summary(e event.Summary) line {
	l := phrase(e)
	var next []string
	switch e.Command {
	case "up":
		next = append(next, "mage status")
		if len(t.scripts) > 0 {
			next = append(next, "mage exec "+slices.Min(slices.Collect(maps.Keys(t.scripts)))+` "uname -a"`)
		}
		next = append(next, "mage down")
	case "down", "clean":
		next = append(next, "mage up")
	}
	if len(next) > 0 {
		l.notes = []string{"next: " + strings.Join(next, ", ")}
	}
	return l
}

// put writes a line, unless it is empty or too quiet.
func (t *text) put(vm string, l line) {
	if l.head+l.rest == "" && !l.raw || l.quiet && !t.o.Verbose {
		return
	}
	t.erase()
	first, other := "", "  "
	if vm = flat(vm); vm != "" {
		first = t.paint(nameColour(vm), vm) + pad("", t.column-columns(vm)+2)
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
		t.out.WriteString(strings.TrimRight(s, " ") + "\n")
	}
	for _, note := range l.notes {
		t.out.WriteString(other + strings.Join(paragraphs(note), "\n"+other) + "\n")
	}
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
