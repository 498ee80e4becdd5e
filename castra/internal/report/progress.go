package report

import (
	"fmt"
	"strings"
	"time"

	"castra.example/castra/castra/event"
)

const (
	lineEvery = 5 * time.Second // between lines about the same gauge
	maxBar    = 30
)

// gauge is work that is measured in bytes: on an image, or of a copy.
type gauge struct {
	vm, head    string
	done, total int64 // total 0: unknown
	live        bool  // it is in the live block
	began, told time.Time
	from        int64 // done at began: what an earlier command had done tells nothing of the pace
}

// image tells how far an image is: each phase when it begins; then a bar on a
// terminal, elsewhere a line every 5 seconds.
func (t *text) image(now time.Time, e event.ImageProgress) {
	key := "image " + e.Image
	old := t.gauges[key]
	g := gauge{head: key + ": " + e.Phase, done: e.Done, total: e.Total, began: now, told: now, from: e.Done}
	if old.head == g.head {
		g.began, g.from = old.began, min(old.from, e.Done)
	}
	g.live = t.o.Width > 0 && (g.total > 0 || g.done > 0)
	if !g.live && !t.o.Verbose && old.head == g.head && now.Sub(old.told) < lineEvery {
		return
	}
	if !g.live && old.head == g.head {
		g.told = now
	}
	t.gauges[key] = g
	if !g.live {
		l := phrase(e)
		l.rest += g.pace(now)
		t.put("", l)
	}
}

// pace is ", 12 MiB/s, 40 s left": how fast the work goes, and until when. "" where that cannot be told yet.
func (g gauge) pace(now time.Time) string {
	took := now.Sub(g.began)
	if took < time.Second || g.done <= g.from {
		return ""
	}
	rate := float64(g.done-g.from) / took.Seconds()
	s := ", " + Bytes(int64(rate)) + "/s"
	if g.total > g.done {
		left := time.Duration(float64(g.total-g.done) / rate * float64(time.Second))
		s += ", " + Duration(max(left.Round(time.Second), time.Second)) + " left"
	}
	return s
}

// verified ends an image's progress. What was done at once needs no line.
func (t *text) verified(e event.ImageVerified) line {
	key := "image " + e.Image
	_, shown := t.gauges[key]
	delete(t.gauges, key)
	l := phrase(e)
	l.quiet = l.quiet && !shown
	return l
}

// copying tells how far a copy is: a bar on a terminal, elsewhere a line every 5
// seconds. What was done at once needs none.
func (t *text) copying(now time.Time, e event.CopyProgress) {
	key := strings.Join([]string{"copy", e.VM, e.Source, e.Target}, "\x00")
	g, known := t.gauges[key]
	if !known {
		g = gauge{vm: e.VM, head: copyHead(e), began: now, told: now}
	}
	g.done, g.total, g.live = e.Done, e.Total, t.o.Width > 0
	if e.Total > 0 && e.Done >= e.Total {
		delete(t.gauges, key)
		took := now.Sub(g.began)
		t.put(e.VM, line{rest: "copied " + e.Source + " to " + e.Target + ", " + Bytes(e.Done) + " in " + Duration(took),
			quiet: took.Milliseconds() < slow})
		return
	}
	if !g.live && (t.o.Verbose || now.Sub(g.told) >= lineEvery) {
		g.told = now
		t.put(e.VM, phrase(e))
	}
	t.gauges[key] = g
}

func copyHead(e event.CopyProgress) string { return "copying " + e.Source + " to " + e.Target }

// amount is ", 42 %, 21 MiB of 50 MiB".
func amount(done, total int64) string {
	switch {
	case total > 0:
		return fmt.Sprintf(", %d %%, %s of %s", percent(done, total), Bytes(done), Bytes(total))
	case done > 0:
		return ", " + Bytes(done)
	default:
		return ""
	}
}

func percent(done, total int64) int64 {
	return int64(100 * float64(min(max(done, 0), total)) / float64(total))
}

// bar is "image x: download, 42 %, 21 MiB of 50 MiB   [####....]  3 MiB/s, 10 s left", where the
// width allows it. The numbers come first: a long head is cut. They get a fixed
// room, so that the bar stands still; it goes before the pace does.
func (g gauge) bar(now time.Time, width int) string {
	numbers, pace := amount(g.done, g.total), g.pace(now)
	head := Shorten(flat(g.head), max(width-columns(numbers)-columns(pace), 0))
	s := pad(head+numbers, columns(head)+28)
	room := min(maxBar, width-columns(s)-3)
	tail := strings.TrimPrefix(pace, ",")
	if tail != "" {
		room = min(room, width-columns(s)-3-paceColumns)
	}
	if room < 8 || g.total <= 0 {
		return head + numbers + pace
	}
	full := room * int(percent(g.done, g.total)) / 100
	return s + " [" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "]" + tail
}

// paceColumns is the room for a pace, so that the bar stands still.
const paceColumns = 26
