package castra

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
	"castra.example/castra/castra/internal/workspace"
)

// verbs that change something, each in a scene of its own.
var verbs = map[string]func(ctx context.Context, p *Project) error{
	"up":    func(ctx context.Context, p *Project) error { return p.Up(ctx, UpOptions{}) },
	"down":  func(ctx context.Context, p *Project) error { return p.Down(ctx) },
	"clean": func(ctx context.Context, p *Project) error { return p.Clean(ctx) },
}

// unasked is what a snapshot has of a down that waits: it asks to be let in.
var unasked = regexp.MustCompile(`(?m)^metadata/down\.json .*\n.*\n|^metadata d.*\n`)

// Issue 5, item 2: whatever state a workspace is left in, status tells it as
// stateRules say, and up, down and clean do what they say; no process but the
// VM's is sent a signal, and no file but Castra's own is changed.
func TestStateTableSoak(t *testing.T) {
	w := newWorld(t, noPowerOff, vm("web"))
	explicit := *w
	explicit.dir += "-explicit"
	require.NoError(t, os.Mkdir(explicit.dir, 0o700))
	explicit.configure(noPowerOff, strings.ReplaceAll(vm("web", `overlay = "disks/web.qcow2"`), "base.qcow2", w.base))
	stranger, innocent := qemutest.StartStranger(t, ""), qemutest.StartStranger(t, "")
	stages := map[bool]*stage{false: newStage(w, stranger, innocent), true: newStage(&explicit, stranger, innocent)}

	all := cells()
	every := soak.N(101, 1) // prime to the number of each dimension's values
	tried, wrong := 0, 0
	for i := 0; i < len(all); i += every {
		c := all[i]
		ok := stages[c.explicit()].play(t, c)
		tried += 2 // with the lock held, and free
		if !ok {
			wrong++
		}
		require.Less(t, wrong, 20, "enough is enough")
	}
	for _, s := range stages {
		s.strike()
	}
	soak.AtLeast(t, "state", "cells of the state table", float64(2*len(all)), float64(tried))
	soak.AtMost(t, "state", "cells with another outcome", 0, float64(wrong))
}

// play tries one cell, and tells that all was as the rules say.
func (s *stage) play(t *testing.T, c cell) bool {
	return t.Run(c.String(), func(t *testing.T) {
		inner := *s.world
		inner.T = t
		x := (&stage{&inner, s.vm, s.command, s.template, s.stranger, s.made, s.innocent, s.scenes}).set(c)
		s.scenes++
		x.looks(t)
		x.waits(t)
		x.acts(t, "down")
		for _, verb := range []string{"clean", "up"} {
			x.stage.set(c).acts(t, verb)
			s.scenes++
		}
	})
}

// looks: status and ports tell the truth and write nothing.
func (x *scene) looks(t *testing.T) {
	before := snapshot(t, x.layout().Root)
	s := x.status("web-0")
	assert.Equal(t, x.outcome(t, "status"), s.State, "status")
	if x.alive() {
		assert.Equal(t, x.vmPID, s.PID)
	} else {
		assert.Zero(t, s.PID)
		assert.Equal(t, slices.Contains([]string{"hostile", "stranger", "directory"}, x.pidfile), strings.Contains(s.Problem, x.layout().Pidfile("web-0")), s.Problem)
	}
	_, err := x.open().Ports(t.Context())
	assert.NoError(t, err)
	assert.Equal(t, before, snapshot(t, x.layout().Root), "status writes nothing")
}

// waits: with the workspace's lock held, all but status wait, and change
// nothing.
func (x *scene) waits(t *testing.T) {
	unlock := x.lock()
	defer unlock()
	before, running := snapshot(t, x.layout().Root), x.running()
	var group sync.WaitGroup
	for verb, run := range verbs {
		p := x.open()
		ctx, cancel := context.WithCancel(t.Context())
		cancelOn(p, "message", cancel)
		group.Go(func() {
			defer cancel()
			assert.ErrorIs(t, run(ctx, p), context.Canceled, verb)
		})
	}
	group.Wait()
	assert.Equal(t, x.outcome(t, "status"), x.status("web-0").State, "status while the lock is held")
	assert.Equal(t, unasked.ReplaceAllString(before, ""), unasked.ReplaceAllString(snapshot(t, x.layout().Root), ""), "what waits changes nothing")
	assert.Equal(t, running, x.running())
}

// acts: the verb does what the rules say.
func (x *scene) acts(t *testing.T, verb string) {
	want := x.outcome(t, verb)
	err := verbs[verb](t.Context(), x.open())
	got := x.told(err)
	if err == nil && want == "nothing" {
		got = want
	}
	assert.Equal(t, want, got, "%s: %v", verb, err)
	assert.Empty(t, x.stranger.Harm(), verb)
	assert.Empty(t, x.innocent.Harm(), verb)
	x.keeps(t, verb, want)
	switch {
	case want == "done" && verb == "up":
		assert.Len(t, x.running(), 1, verb)
		assert.Equal(t, "running", x.status("web-0").State, verb)
	case want == "done":
		assert.Empty(t, x.running(), verb)
		x.leavesNothing(t, verb)
	case slices.Contains([]string{"newer", "runs", "silent", "lost"}, want) && x.alive():
		assert.Equal(t, []int{x.vmPID}, x.running(), "%s: what lives is left alone", verb)
	default:
		assert.Empty(t, x.running(), verb)
	}
	if verb == "down" && strings.ContainsAny(err2text(err), "/") {
		x.clearsUp(t)
	}
}

func err2text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// told is the outcome that an error tells of.
func (x *scene) told(err error) string {
	text := err2text(err)
	var newer *workspace.RecordError
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &newer) && newer.Newer:
		return "newer"
	case as[*RunningError](err):
		return "runs"
	case strings.Contains(text, "its record is lost"):
		return "lost"
	case strings.Contains(text, "does not answer"):
		return "silent"
	}
	var way []string
	for _, obstacle := range [][2]string{
		{"pidfile", "pidfile " + x.layout().Pidfile("web-0")},
		{"socket", x.layout().Monitor("web-0") + " is not a socket"},
		{"overlay", x.overlay},
	} {
		if strings.Contains(text, obstacle[1]) {
			way = append(way, obstacle[0])
		}
	}
	return strings.Join(way, " ")
}

// keeps: what is not Castra's is as it was. A QEMU that ends in order has
// removed what stood at its monitor's path.
func (x *scene) keeps(t *testing.T, verb, want string) {
	for path, text := range x.kept {
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) && path == x.layout().Monitor("web-0") && x.alive() && verb == "down" {
			continue
		}
		assert.NoError(t, err, verb)
		assert.Equal(t, text, string(data), "%s: %s", verb, path)
	}
	if x.pidfile == "hostile" && !x.alive() || x.pidfile == "directory" {
		_, err := os.Lstat(x.layout().Pidfile("web-0"))
		assert.NoError(t, err, "%s: %s", verb, want)
	}
}

// leavesNothing: a clean slate. An overlay that castra.toml places is not
// known to be Castra's without a record.
func (x *scene) leavesNothing(t *testing.T, verb string) {
	l := x.layout()
	gone := []string{l.Pidfile("web-0"), l.Monitor("web-0"), l.Seed("web-0")}
	if x.readable() || !x.explicit() {
		gone = append(gone, x.overlay)
	}
	for _, path := range gone {
		_, err := os.Lstat(path)
		assert.ErrorIs(t, err, os.ErrNotExist, "%s leaves %s", verb, path)
	}
	if x.record != "newer" {
		assert.Empty(t, x.world.session().VMs, verb)
	}
}

// clearsUp: once what was named is out of the way, down leaves nothing.
func (x *scene) clearsUp(t *testing.T) {
	x.stranger.Forget()
	l := x.layout()
	if x.pidfile == "hostile" || x.pidfile == "directory" {
		assert.NoError(t, os.RemoveAll(l.Pidfile("web-0")))
	}
	for path := range x.kept {
		if path == l.Monitor("web-0") || path == x.overlay && x.cell.overlay == "users" {
			assert.NoError(t, os.RemoveAll(path))
		}
	}
	assert.NoError(t, x.open().Down(t.Context()), "down, with the way clear")
	x.leavesNothing(t, "down, with the way clear")
	_, err := os.Lstat(filepath.Join(l.Root, "lock"))
	assert.NoError(t, err)
}
