package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"castra.example/castra/castra/event"
)

// The live block is the last lines on a terminal: one for each VM that is
// waited for, then one for each image or copy under way. It changes in place,
// gives way to every other line, is drawn again below it, and is gone at the
// end. Each line of it takes one row: none is as wide as the terminal was at the
// start and, should that have become narrower, none wraps.

const (
	eraseBelow   = "\x1b[J"
	eraseLineEnd = "\x1b[K"
	wrapOff      = "\x1b[?7l"
	wrapOn       = "\x1b[?7h"
	maxLive      = 8 // lines of a sort
)

// wait is what a VM is waited for, and when that was last heard of.
type wait struct {
	event.Waiting
	heard time.Time
}

// forgotten is when a wait that is not heard of any more, though it should be
// every second, has ended.
const forgotten = 3 * time.Second

// wait shows a wait in the live block or, where nothing can be rewritten, as a
// line now and then.
func (t *text) wait(r event.Record, e event.Waiting) {
	if t.o.Width > 0 {
		t.waits[e.VM] = wait{e, r.Time}
		return
	}
	if t.pace.due(r.Workspace, e, !t.o.Verbose) {
		t.put(e.VM, phrase(e))
	}
}

// redraw brings the live block up to date.
func (t *text) redraw(now time.Time) {
	if t.o.Width <= 0 {
		return
	}
	block := t.block(now)
	if slices.Equal(block, t.live) {
		return
	}
	t.toTop()
	if len(block) > 0 {
		t.out.WriteString(wrapOff + strings.Join(block, eraseLineEnd+"\n") + eraseLineEnd + wrapOn)
	}
	if len(block) < len(t.live) {
		t.out.WriteString(eraseBelow)
	}
	t.live = block
}

// erase takes the live block away, to write where it was.
func (t *text) erase() {
	if len(t.live) > 0 {
		t.toTop()
		t.out.WriteString(eraseBelow)
		t.live = nil
	}
}

// toTop goes to the start of the live block. The cursor rests in its last line.
func (t *text) toTop() {
	if len(t.live) > 0 {
		t.out.WriteByte('\r')
	}
	if len(t.live) > 1 {
		t.out.WriteString("\x1b[" + strconv.Itoa(len(t.live)-1) + "A")
	}
}

func (t *text) block(now time.Time) []string {
	maps.DeleteFunc(t.waits, func(_ string, w wait) bool { return now.Sub(w.heard) > forgotten })
	var waits, gauges []string
	for _, vm := range slices.SortedFunc(maps.Keys(t.waits), byNumber) {
		waits = append(waits, t.liveLine(vm, waitText(t.waits[vm].Waiting)))
	}
	for _, key := range slices.Sorted(maps.Keys(t.gauges)) {
		if g := t.gauges[key]; g.live {
			gauges = append(gauges, t.liveLine(g.vm, g.bar(now, t.o.Width-1-columns(t.margin(g.vm)))))
		}
	}
	block := append(t.atMost(waits), t.atMost(gauges)...)
	if t.o.Height > 0 { // what is above the top row cannot be redrawn
		block = block[:min(len(block), t.o.Height-1)]
	}
	return block
}

func (t *text) atMost(lines []string) []string {
	if len(lines) <= maxLive {
		return lines
	}
	more := fmt.Sprintf("and %d more", len(lines)-maxLive)
	return append(lines[:maxLive:maxLive], t.liveLine("", more))
}

func (t *text) liveLine(vm, s string) string {
	name := clip(t.margin(vm), t.o.Width-1)
	return t.paint(nameColour(vm), name) + t.paint(faint, clip(flat(s), t.o.Width-1-columns(name)))
}

// margin is the column of VM names, for a line about this one.
func (t *text) margin(vm string) string {
	if vm = flat(vm); vm == "" {
		return ""
	}
	return pad(vm, t.column+2)
}

func waitText(e event.Waiting) string {
	s := "waiting for " + e.For + ", " + wholeSeconds(e.ElapsedMS)
	if e.LimitMS > 0 {
		s += " of at most " + wholeSeconds(e.LimitMS)
	}
	return s
}

// byNumber sorts web-2 before web-10.
func byNumber(a, b string) int {
	role := func(s string) string { return strings.TrimRight(s, "0123456789") }
	if c := strings.Compare(role(a), role(b)); c != 0 {
		return c
	}
	if c := len(a) - len(b); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}
