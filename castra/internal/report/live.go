package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"castra.example/castra/castra/event"
)

// The live line is the last line on a terminal: it changes in place, gives way
// to every other line and is drawn again below it.

const (
	eraseLine = "\r\x1b[K"
	maxBar    = 30
)

// redraw brings the live line up to date.
func (t *text) redraw() {
	if t.o.Width <= 0 {
		return
	}
	now := t.bar
	if now == "" {
		now = t.waitingLine()
	}
	if now == t.live {
		return
	}
	_, _ = io.WriteString(t.w, eraseLine+t.paint(faint, clip(now, t.o.Width-1)))
	t.live = now
}

// waitingLine is "waiting for SSH, 10 s of at most 300 s: web-0, web-1": the
// longest wait, and all that wait for the same.
func (t *text) waitingLine() string {
	var longest *event.Waiting
	var names []string
	for _, vm := range slices.Sorted(maps.Keys(t.vms)) {
		w := t.vms[vm].waiting
		switch {
		case w == nil:
		case longest == nil || w.For != longest.For && w.ElapsedMS > longest.ElapsedMS:
			longest, names = w, []string{vm}
		case w.For == longest.For:
			names = append(names, vm)
			if w.ElapsedMS > longest.ElapsedMS {
				longest = w
			}
		}
	}
	if longest == nil {
		return ""
	}
	return waitText(*longest) + ": " + strings.Join(names, ", ")
}

func waitText(e event.Waiting) string {
	return fmt.Sprintf("waiting for %s, %s of at most %s", e.For, wholeSeconds(e.ElapsedMS), wholeSeconds(e.LimitMS))
}

// wait tells of a wait. Where nothing can be rewritten, lines come at least 5
// seconds apart, and 15 after half a minute.
func (t *text) wait(e event.Waiting, s *vmState) {
	if t.o.Width > 0 && !t.o.Verbose && e.VM != "" {
		s.waiting = &e
		return
	}
	gap := int64(4500) // ticks are not exact
	if s.printed.ElapsedMS > 29_500 {
		gap = 14_500
	}
	same := s.printed.For == e.For && e.ElapsedMS >= s.printed.ElapsedMS && s.printed.LimitMS > 0
	if same && !t.o.Verbose && e.ElapsedMS-s.printed.ElapsedMS < gap {
		return
	}
	s.printed = e
	t.put(e.VM, line{style: faint, head: waitText(e)})
}

type imageState struct {
	phase string
	told  time.Time
}

// progress tells how far an image is: each phase when it begins; then a bar on
// a terminal, elsewhere a line every 5 seconds.
func (t *text) progress(now time.Time, e event.ImageProgress) {
	s := t.images[e.Image]
	head := "image " + e.Image + ": " + e.Phase
	if s.phase != e.Phase {
		t.bar = ""
	}
	if t.o.Width > 0 && e.Total > 0 {
		t.images[e.Image] = imageState{e.Phase, now}
		t.bar = bar(head, e, t.o.Width-1)
		return
	}
	if s.phase == e.Phase && now.Sub(s.told) < 5*time.Second && !t.o.Verbose {
		return
	}
	t.images[e.Image] = imageState{e.Phase, now}
	t.put("", line{rest: head + amount(e)})
}

func amount(e event.ImageProgress) string {
	switch {
	case e.Total > 0:
		return fmt.Sprintf(", %d %%, %s of %s", percent(e), Bytes(e.Done), Bytes(e.Total))
	case e.Done > 0:
		return ", " + Bytes(e.Done)
	default:
		return ""
	}
}

func percent(e event.ImageProgress) int64 {
	return int64(100 * float64(min(max(e.Done, 0), e.Total)) / float64(e.Total))
}

// bar is "image x: download, 42 %, 21 MiB of 50 MiB   [####....]", where the
// width allows it. The numbers get a fixed room, so that the bar stands still.
func bar(head string, e event.ImageProgress, width int) string {
	s := pad(head+amount(e), utf8.RuneCountInString(head)+28)
	room := min(maxBar, width-utf8.RuneCountInString(s)-3)
	if room < 8 {
		return head + amount(e)
	}
	full := room * int(percent(e)) / 100
	return s + " [" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "]"
}

// verified ends an image's progress. What was done at once needs no line.
func (t *text) verified(e event.ImageVerified) line {
	_, shown := t.images[e.Image]
	delete(t.images, e.Image)
	t.bar = ""
	return line{
		rest:  "image " + e.Image + ": verified in " + ms(e.ElapsedMS) + sized(e.Bytes),
		quiet: !shown && e.ElapsedMS < slow,
	}
}

// clip makes a string one line of at most width runes.
func clip(s string, width int) string {
	runes := []rune(oneLine.Replace(Sanitize(s)))
	return string(runes[:min(len(runes), max(width, 0))])
}
