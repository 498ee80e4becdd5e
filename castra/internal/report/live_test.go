package report

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"castra.example/castra/castra/event"
)

func waitFor(vm, what string, seconds int64) event.Waiting {
	return event.Waiting{VM: vm, For: what, ElapsedMS: seconds*1000 + 3, LimitMS: 300000}
}

func download(image string, done int64) event.ImageProgress {
	return event.ImageProgress{Image: image, Phase: "download", Done: done << 20, Total: 100 << 20}
}

func TestLiveBlock(t *testing.T) {
	s := newScreen(t, 80)
	r := NewText(s, TextOptions{Width: 80, Color: true})
	now := start
	see := func(e event.Event, want ...string) {
		t.Helper()
		writes := s.writes
		r.Report(event.Record{Time: now, Workspace: "w", Event: e})
		require.Equal(t, want, s.lines())
		require.LessOrEqual(t, s.writes-writes, 1, "an event is one write, or the block flickers")
	}
	see(event.Message{Text: "hello"}, "hello")
	see(waitFor("web-10", "SSH", 1), "hello",
		"web-10  waiting for SSH, 1 s of at most 300 s")
	see(waitFor("web-2", "SSH", 1), "hello",
		"web-2   waiting for SSH, 1 s of at most 300 s",
		"web-10  waiting for SSH, 1 s of at most 300 s")
	see(download("a", 50), "hello",
		"web-2   waiting for SSH, 1 s of at most 300 s",
		"web-10  waiting for SSH, 1 s of at most 300 s",
		"image a: download, 50 %, 50 MiB of 100 MiB    [###############...............]")
	see(event.Ready{VM: "web-2", User: "root", Host: "h", Port: 22, ElapsedMS: 1500}, "hello",
		"web-2   ready in 1.5 s: root@h:22",
		"web-10  waiting for SSH, 1 s of at most 300 s",
		"image a: download, 50 %, 50 MiB of 100 MiB    [###############...............]")
	see(event.ImageVerified{Image: "a", Bytes: 100 << 20, ElapsedMS: 900}, "hello",
		"web-2   ready in 1.5 s: root@h:22",
		"image a: verified in 0.9 s, 100 MiB",
		"web-10  waiting for SSH, 1 s of at most 300 s")
	see(event.Waiting{VM: "web-2", For: "bootstrap", ElapsedMS: 1002}, "hello",
		"web-2   ready in 1.5 s: root@h:22",
		"image a: verified in 0.9 s, 100 MiB",
		"web-2   waiting for bootstrap, 1 s",
		"web-10  waiting for SSH, 1 s of at most 300 s")
	see(event.BootstrapOutput{VM: "web-2", Line: "x"}, "hello",
		"web-2   ready in 1.5 s: root@h:22",
		"image a: verified in 0.9 s, 100 MiB",
		"web-2   | x",
		"web-2   waiting for bootstrap, 1 s",
		"web-10  waiting for SSH, 1 s of at most 300 s")
	see(event.CommandFailed{Command: "up", ElapsedMS: 4000}, "hello",
		"web-2   ready in 1.5 s: root@h:22",
		"image a: verified in 0.9 s, 100 MiB",
		"web-2   | x",
		"up failed after 4 s")
}

// A wait whose last tick comes after its end must not stay for ever.
func TestForgottenWaitIsDropped(t *testing.T) {
	s := newScreen(t, 80)
	r := NewText(s, TextOptions{Width: 80})
	r.Report(event.Record{Time: start, Event: waitFor("a", "SSH", 1)})
	r.Report(event.Record{Time: start.Add(2 * time.Second), Event: waitFor("b", "SSH", 1)})
	require.Len(t, s.lines(), 2)
	r.Report(event.Record{Time: start.Add(4 * time.Second), Event: waitFor("b", "SSH", 3)})
	require.Equal(t, []string{"b  waiting for SSH, 3 s of at most 300 s"}, s.lines())
}

func TestManyWaits(t *testing.T) {
	s := newScreen(t, 80)
	r := NewText(s, TextOptions{Width: 80})
	for i := range 20 {
		r.Report(event.Record{Time: start, Event: waitFor(fmt.Sprint("web-", i), "SSH", 5)})
	}
	lines := s.lines()
	require.Len(t, lines, maxLive+1)
	require.True(t, strings.HasPrefix(lines[7], "web-7 "), lines[7])
	require.Equal(t, "and 12 more", lines[8])
}

func TestLowTerminal(t *testing.T) {
	s := newScreen(t, 80)
	r := NewText(s, TextOptions{Width: 80, Height: 3})
	for _, vm := range []string{"a", "b", "c"} {
		r.Report(event.Record{Time: start, Event: waitFor(vm, "SSH", 5)})
	}
	require.Len(t, s.lines(), 2)
}

func TestCopyGivesNumbersTheRoom(t *testing.T) {
	s := newScreen(t, 60)
	r := NewText(s, TextOptions{Width: 60})
	long := strings.Repeat("directory/", 20)
	r.Report(event.Record{Time: start, Event: event.CopyProgress{VM: "web-0", Source: long, Target: "web-0:/srv", Done: 1 << 20, Total: 4 << 20}})
	require.Equal(t, []string{"web-0  copying directory/directory..., 25 %, 1 MiB of 4 MiB"}, s.lines())
}

// Whatever happens in whatever order on a terminal of whatever width: what was
// written for good is what a terminal without a live block would show, the
// block stands below it, and nothing of it is left at the end.
func TestLiveBlockLeavesNoTrace(t *testing.T) {
	vms := rapid.SampledFrom([]string{"web-0", "web-1", "日本-0", "db-0", "", "a-very-long-name-of-a-virtual-machine-0"})
	one := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) event.Event {
			return waitFor(vms.Draw(t, "vm"), rapid.SampledFrom([]string{"SSH", "電源\nx"}).Draw(t, "for"), rapid.Int64Range(0, 99).Draw(t, "s"))
		}),
		rapid.Custom(func(t *rapid.T) event.Event {
			return download(rapid.SampledFrom([]string{"a", "日本語🙂"}).Draw(t, "image"), rapid.Int64Range(0, 120).Draw(t, "done"))
		}),
		rapid.Custom(func(t *rapid.T) event.Event {
			return event.CopyProgress{VM: vms.Draw(t, "vm"), Source: "s", Target: "日本", Done: rapid.Int64Range(0, 90).Draw(t, "done"), Total: 100}
		}),
		rapid.Custom(func(t *rapid.T) event.Event {
			return event.Message{Text: rapid.SampledFrom([]string{"one", "two\nlines", "日本"}).Draw(t, "text")}
		}),
		rapid.Custom(func(t *rapid.T) event.Event { return event.Stopped{VM: vms.Draw(t, "vm"), Outcome: "graceful"} }),
	)
	rapid.Check(t, func(rt *rapid.T) {
		width := rapid.SampledFrom([]int{1, 8, 20, 80, 200}).Draw(rt, "width")
		s := newScreen(t, width)
		r := NewText(s, TextOptions{Width: width, Color: true}).(*text)
		plain := newScreen(t, width)
		lasting := NewText(plain, TextOptions{Width: width})
		for i, e := range append(rapid.SliceOfN(one, 1, 40).Draw(rt, "events"), event.Summary{Command: "up", Text: "done"}) {
			rec := event.Record{Time: start.Add(time.Duration(i) * 100 * time.Millisecond), Event: e}
			r.Report(rec)
			lasting.(*text).enter(e.Subject(), e) // for its columns
			switch e.(type) {
			case event.Waiting, event.ImageProgress, event.CopyProgress:
			default:
				lasting.Report(rec)
			}
			lines := s.lines()
			require.Equal(rt, len(plain.lines())+len(r.live), len(lines)+emptyTail(r.live), "%q", lines)
			require.Equal(rt, plain.lines(), lines[:len(plain.lines())])
		}
		require.Equal(rt, plain.lines(), s.lines())
	})
}

// emptyTail is 1 where a last line has no room for a character.
func emptyTail(block []string) int {
	if len(block) > 0 && ourControls.ReplaceAllString(block[len(block)-1], "") == "" {
		return 1
	}
	return 0
}

func TestWaitingIsThinned(t *testing.T) {
	var events []event.Event
	for s := int64(1); s <= 90; s++ {
		events = append(events, waitFor("a", "SSH", s), waitFor("b", "SSH", s))
	}
	times := func(marks ...string) (lines []string) {
		for _, mark := range marks {
			for _, vm := range []string{"a", "b"} {
				lines = append(lines, vm+"  waiting for SSH, "+mark+" s of at most 300 s")
			}
		}
		return lines
	}
	every5 := strings.Fields("5 10 15 20 25 30 35 40 45 50 55 60 65 70 75 80 85 90")
	for name, c := range map[string]struct {
		o    TextOptions
		want []string
	}{
		"plain":   {TextOptions{}, times("5", "10", "15", "20", "25", "30", "45", "60", "75", "90")},
		"verbose": {TextOptions{Verbose: true}, times(every5...)},
	} {
		var b bytes.Buffer
		play(NewText(&b, c.o), events)
		require.Equal(t, c.want, strings.Split(strings.TrimSpace(b.String()), "\n"), name)
	}
	var b bytes.Buffer
	play(NewJSON(&b), events)
	require.Equal(t, 2*len(every5), strings.Count(b.String(), "\n"))
	for _, s := range every5 {
		require.Equal(t, 2, strings.Count(b.String(), `"elapsed_ms":`+s+`003,`), s)
	}
}

func TestPaceKeepsWaitsApart(t *testing.T) {
	p := pace{}
	for i, c := range []struct {
		workspace, vm, what string
		ms                  int64
		want                bool
	}{
		{"w", "a", "SSH", 4400, false},
		{"w", "a", "SSH", 5000, true},
		{"w", "a", "bootstrap", 5000, true}, // another wait
		{"w", "b", "SSH", 5000, true},       // another VM
		{"x", "a", "SSH", 5000, true},       // the same name elsewhere
		{"w", "a", "SSH", 9000, false},
		{"w", "a", "SSH", 1000, false}, // it began again
		{"w", "a", "SSH", 5000, true},
		{"w", "a", "SSH", 9990, true},
	} {
		require.Equal(t, c.want, p.due(c.workspace, event.Waiting{VM: c.vm, For: c.what, ElapsedMS: c.ms}, true), "%d", i)
	}
}

func TestByNumber(t *testing.T) {
	names := []string{"web-10", "db-1", "web-2", "web", "web-02", "db-0", "7"}
	slices.SortFunc(names, byNumber)
	require.Equal(t, []string{"7", "db-0", "db-1", "web", "web-2", "web-02", "web-10"}, names)
}
