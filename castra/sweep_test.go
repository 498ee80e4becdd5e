package castra

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
	"castra.example/castra/castra/internal/sweep"
)

// sweptScene is one command in one situation.
type sweptScene struct {
	name    string
	verb    string
	prune   PruneOptions
	force   bool
	warm    string
	apart   bool                    // the workspace is not under CASTRA_HOME
	project func(w *world) []string // the [[vms]] tables
	before  func(w *world)          // what came before the command
	keeps   []string                // VMs that run before, and are none of its business
}

var scenes = []sweptScene{
	{name: "up", verb: "up", warm: warmOff, project: webAlone},
	{name: "up of the second", verb: "up", warm: warmOff, project: webAndDB, before: func(w *world) { w.up("web") }, keeps: []string{"web-0"}},
	{name: "up elsewhere with a bootstrap", verb: "up", apart: true, warm: warmOff, project: func(w *world) []string {
		return []string{w.bootstrapped("web", "echo done")}
	}},
	{name: "up that makes a template", verb: "up", project: webAlone},
	{name: "up that restores", verb: "up", project: webAlone, before: func(w *world) { w.cycle("web-0") }},
	{name: "down", verb: "down", warm: warmOff, project: webAndDB, before: func(w *world) { w.up() }},
	{name: "clean after a crash", verb: "clean", warm: warmOff, project: webAlone, before: func(w *world) { w.up(); w.crashOf("web-0") }},
	{name: "clean with force", verb: "clean", force: true, warm: warmOff, project: webAlone, before: func(w *world) { w.up() }},
	{name: "prune of all", verb: "prune", prune: PruneOptions{Templates: true, Images: true}, project: webAlone, before: func(w *world) { w.cycle("web-0") }},
}

func webAlone(*world) []string { return []string{vm("web")} }
func webAndDB(*world) []string { return []string{vm("web"), vm("db")} }

// crashOf kills the VM's QEMU and waits for its end.
func (w *world) crashOf(name string) {
	w.Helper()
	for pid, is := range w.qemus() {
		if is == name {
			p, err := os.FindProcess(pid)
			require.NoError(w, err)
			require.NoError(w, p.Kill())
		}
	}
	require.Eventually(w, func() bool { return w.status(name).State == "crashed" }, patience, poll)
}

// set is a world in which the scene's command is about to run.
func (s sweptScene) set(t *testing.T, fakes string) (*world, order) {
	w := newSwept(t, fakes)
	w.warm = s.warm
	if s.apart {
		w.state = filepath.Join(filepath.Dir(w.dir), "state")
	}
	tables := s.project(w)
	w.configure(patient, tables...)
	w.image()
	if s.before != nil {
		s.before(w)
	}
	o := w.options()
	o.Force = s.force
	return w, order{s.verb, o, s.prune}
}

// onward are the orders of the verbs that must work after whatever happened.
var onward = [][]string{{"up", "down", "clean"}, {"down", "up", "down", "clean"}, {"clean", "up", "down", "clean"}}

// goOn does them, each without help, and gives the longest time that one took.
func (w *world) goOn(verbs []string) (slowest time.Duration) {
	w.Helper()
	for _, verb := range verbs {
		began := time.Now()
		o := order{Verb: verb, Options: w.options()}
		err := o.carryOut(w.Context(), w.events)
		if verb == "clean" && as[*RunningError](err) {
			require.NotEmpty(w, w.qemus(), "clean says that VMs run")
			o.Options.Force = true
			err = o.carryOut(w.Context(), w.events)
		}
		require.NoError(w, err, "%s: %s", verb, hint(err))
		slowest = max(slowest, time.Since(began))
		switch verb {
		case "up":
			for _, state := range w.tellsTruth() {
				require.Contains(w, state, " running")
			}
		default:
			require.Eventually(w, func() bool { return len(w.qemus()) == 0 }, patience, poll, "%s leaves processes: %v", verb, w.qemus())
		}
	}
	return slowest
}

// varying is what differs between two worlds in the names of files.
var varying = regexp.MustCompile(`[0-9a-f]{12,}`)

// left is what there is in the world, names alone.
func (w *world) left() []string {
	var names []string
	for _, name := range tree(w, filepath.Dir(w.dir)) {
		if strings.HasPrefix(name, "guest-") { // what a guest has is its own
			continue
		}
		names = append(names, varying.ReplaceAllString(name, "#"))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// unharmed are the calls of the scene's command, and what is left where nothing goes wrong.
func (s sweptScene) unharmed(t *testing.T, fakes string) (calls []sweep.Call, left []string) {
	w, o := s.set(t, fakes)
	r, said := w.trace(o, sweep.Plan{})
	require.Zero(t, r.Status.ExitStatus(), said)
	w.goOn(onward[0])
	return r.Calls, w.left()
}

// nothingLeft: there are no files but those that are there where nothing goes wrong.
func (w *world) nothingLeft(baseline []string, r sweep.Result) {
	w.Helper()
	extra := slices.DeleteFunc(w.left(), func(name string) bool { return slices.Contains(baseline, name) })
	assert.Empty(w, extra, "is left after %v", r.Struck)
}

// survey watches each scene, and gives the points at which something is to be done, as plans say of the call of that
// number; and what is left of each scene.
func survey(t *testing.T, fakes string, plans func(i int, c sweep.Call) []sweep.Plan) (points []point, baseline map[int][]string) {
	baseline = map[int][]string{}
	for n, s := range scenes {
		var calls []sweep.Call
		calls, baseline[n] = s.unharmed(t, fakes)
		t.Logf("%s: %d calls", s.name, len(calls))
		for i, c := range calls {
			for _, plan := range plans(i+1, c) {
				points = append(points, point{n, plan, c, onward[len(points)%len(onward)]})
			}
		}
	}
	return points, baseline
}

// point is one call of a scene, and what is done there.
type point struct {
	scene int
	plan  sweep.Plan
	call  sweep.Call // as it was in the run that was watched
	verbs []string
}

func (p point) String() string {
	what := string(p.plan.Do)
	if p.plan.Errno != 0 {
		what += " " + unix.ErrnoName(p.plan.Errno)
	}
	return fmt.Sprintf("%s: %s %d %s, then %s", scenes[p.scene].name, what, p.plan.At, p.call.Name, p.verbs[0])
}

// sweepers is how many points are tried side by side.
const sweepers = 3

// inParallel tries points side by side; f is the test of one.
func inParallel(t *testing.T, points []point, f func(t *testing.T, p point)) {
	queue := make(chan point)
	var wg sync.WaitGroup
	for range sweepers {
		wg.Go(func() {
			for p := range queue {
				t.Run(p.String(), func(t *testing.T) { f(t, p) })
			}
		})
	}
	for _, p := range points {
		queue <- p
	}
	close(queue)
	wg.Wait()
}

// share is n of the points, evenly.
func share(points []point, n int) []point {
	if n >= len(points) {
		return points
	}
	var some []point
	for i := range n {
		some = append(some, points[i*len(points)/n])
	}
	return some
}

// stageFakes installs the fakes for worlds side by side.
func stageFakes(t *testing.T) (fakes string) {
	t.Helper()
	if !sweep.Supported {
		t.Skip("there is no tracer for this computer")
	}
	fakes = qemutest.Install(t)
	t.Setenv("PATH", fakes+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv(envFakeQEMU, "")
	t.Setenv(envFakeImg, "")
	return fakes
}

// A1: killed at every system call that changes something, a command leaves what status tells the truth about, and what the
// next up, down or clean puts in order without help.
func TestKillSweepSoak(t *testing.T) {
	fakes := stageFakes(t)
	points, baseline := survey(t, fakes, func(i int, c sweep.Call) []sweep.Plan {
		plans := []sweep.Plan{{At: i, Do: sweep.KillBefore}}
		switch {
		case c.Name == "write" || c.Name == "pwrite64" || !c.OnFile():
			plans = append(plans, sweep.Plan{At: i, Do: sweep.KillAmid})
		case i%4 == 0: // it is nearly the same as before the next
			plans = append(plans, sweep.Plan{At: i, Do: sweep.KillAfter})
		}
		return plans
	})
	var mu sync.Mutex
	var struck int
	var slowest time.Duration
	inParallel(t, share(points, soak.N(30, len(points))), func(t *testing.T, p point) {
		w, o := scenes[p.scene].set(t, fakes)
		r, said := w.trace(o, p.plan)
		if r.Struck == nil { // it had fewer calls this time
			require.Zero(t, r.Status.ExitStatus(), said)
		} else {
			require.True(t, died(r), said)
		}
		w.tellsTruth()
		slow := w.goOn(p.verbs)
		w.nothingLeft(baseline[p.scene], r)
		mu.Lock()
		defer mu.Unlock()
		slowest = max(slowest, slow)
		if r.Struck != nil {
			struck++
		}
	})
	soak.AtLeast(t, "A1", "points killed", 500, float64(struck))
	soak.Figure(t, "A1", "slowest command after a kill", 2, slowest.Seconds(), " s")
}

// A7: where a file cannot be written, made, renamed or removed, the command says which and what to do, ends no VM that ran
// before, and leaves what the next command puts in order once the fault is gone.
func TestFaultSweepSoak(t *testing.T) {
	fakes := stageFakes(t)
	points, baseline := survey(t, fakes, func(i int, c sweep.Call) (plans []sweep.Plan) {
		if c.Room {
			plans = append(plans, sweep.Plan{At: i, Do: sweep.FailOn, Errno: unix.ENOSPC})
		}
		errno := unix.EIO
		if onName := !slices.Contains([]string{"write", "pwrite64", "fsync", "ftruncate", "fallocate"}, c.Name); onName && i%3 > 0 {
			errno = unix.EACCES
		}
		if c.OnFile() {
			plans = append(plans, sweep.Plan{At: i, Do: sweep.Fail, Errno: errno})
		}
		return plans
	})
	var mu sync.Mutex
	var struck int
	silent := map[string]int{}
	inParallel(t, share(points, soak.N(24, len(points))), func(t *testing.T, p point) {
		s := scenes[p.scene]
		w, o := s.set(t, fakes)
		ran := w.pids(s.keeps)
		r, said := w.trace(o, p.plan)
		require.True(t, r.Status.Exited(), "%v: %s", r.Status, said)
		if r.Struck != nil && r.Struck.OnFile() && r.Status.ExitStatus() != 0 { // it may be another call this time
			assert.Contains(t, said, p.plan.Errno.Error(), "%v", r.Struck)
			assert.True(t, slices.ContainsFunc(r.Calls, func(c sweep.Call) bool {
				dir := filepath.Dir(c.Path) // of a template the store is named, and what it has there
				return c.Err == p.plan.Errno && (strings.Contains(said, dir) || strings.Contains(said, filepath.Dir(dir)+": "))
			}), "%s\n%v", said, r.Struck)
			assert.Contains(t, said, "\n  next: ", "%v", r.Struck)
		}
		w.tellsTruth()
		require.Equal(t, ran, w.pids(s.keeps), "VMs that ran before")
		w.goOn(p.verbs)
		w.nothingLeft(baseline[p.scene], r)
		mu.Lock()
		defer mu.Unlock()
		if r.Struck != nil {
			struck++
			if !strings.Contains(said, p.plan.Errno.Error()) {
				silent[p.call.Name+" "+varying.ReplaceAllString(strings.TrimPrefix(r.Struck.Path, filepath.Dir(w.dir)), "#")]++
			}
		}
	})
	soak.AtLeast(t, "A7", "points failed with ENOSPC, EIO or EACCES", 500, float64(struck))
	t.Logf("the command went on without a word, since nothing hangs on it: %v", silent)
}

// pids are those of the VMs, which must run.
func (w *world) pids(vms []string) []int {
	w.Helper()
	var pids []int
	for _, name := range vms {
		s := w.status(name)
		require.Contains(w, w.qemus(), s.PID, "%s is %s", name, s.State)
		pids = append(pids, s.PID)
	}
	return pids
}
