package castra

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

// done is one command of a history.
type done struct {
	client int
	errand errand
	outcome
}

// since is when it may first have had its effect: a writer has none before it
// is the only one.
func (d done) since() int64 { return max(d.Began, d.Accepted) }

func (d done) overlaps(e done) bool { return d.since() <= e.Ended && e.since() <= d.Ended }

// touches tells that the command may start or end the VM called vm.
func (d done) touches(vm string) bool {
	switch d.errand.Verb {
	case "up":
		return len(d.errand.VMs) == 0 || slices.Contains(d.errand.VMs, vm)
	case "down":
		return true
	default:
		return false
	}
}

// fact is what one command says of one VM, or does to it.
type fact int

const (
	runs   fact = iota // it was seen to run
	rests              // it was seen not to
	starts             // it runs from now on
	ends
	mayEnd // an up that another broke off may have taken it down again
)

// register is one VM as a sequence of commands sees it: it runs or does not.
var register = porcupine.NondeterministicModel{
	Init: func() []any { return []any{false} },
	Step: func(state, input, _ any) []any {
		running := state.(bool)
		switch f := input.(fact); {
		case f == starts:
			return []any{true}
		case f == ends:
			return []any{false}
		case f == mayEnd:
			return []any{running, false}
		case running == (f == runs):
			return []any{running}
		default:
			return nil
		}
	},
	DescribeOperation: func(input, _ any) string {
		return [...]string{"runs", "rests", "starts", "ends", "may end"}[input.(fact)]
	},
	DescribeState: func(state any) string { return fmt.Sprint(state) },
}

// history is what all clients did and saw.
type history struct {
	*world
	mu   sync.Mutex
	done []done
}

func (h *history) add(d done) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, d)
}

// takenDown tells that an up has given in to a down.
func (d done) takenDown() bool {
	return d.errand.Verb == "up" && strings.Contains(d.Fault, "taken down")
}

// fact is what the command says of vm or does to it; ok is false where it was
// seen in the middle of a change, which must be going on.
func (h *history) fact(d done, vm string) (f fact, ok bool) {
	changing := func(verbs ...string) bool {
		return slices.ContainsFunc(h.done, func(e done) bool { return slices.Contains(verbs, e.errand.Verb) && e.touches(vm) && e.overlaps(d) })
	}
	switch d.errand.Verb {
	case "up":
		if d.takenDown() {
			return mayEnd, d.touches(vm)
		}
		return starts, d.touches(vm)
	case "down":
		return ends, true
	case "clean":
		if slices.Contains(d.Running, vm) {
			return runs, true
		}
		return rests, true
	case "ports":
		for _, p := range d.Ports.Ports {
			if p.VM == vm && p.Active {
				return runs, !changing("up")
			}
		}
		return rests, true
	}
	for _, s := range d.Status.VMs {
		switch {
		case s.Name != vm:
		case s.State == "running":
			return runs, true
		case s.State == "stopped":
			return rests, true
		case s.State == "booting":
			require.True(h, changing("up"), "%s is booting, and nobody has started it", vm)
			return 0, false
		case s.State == "not responding" || s.State == "shutdown":
			require.True(h, changing("up", "down"), "%s is %s (%s), and nobody ends it", vm, s.State, s.Problem)
			return 0, false
		default:
			require.Fail(h, "wrong status", "%s is %s (%s)", vm, s.State, s.Problem)
		}
	}
	return 0, false
}

// check holds the history against the sequential model of each VM.
func (h *history) check(vms ...string) {
	h.Helper()
	for _, d := range h.done {
		refused := d.errand.Verb == "clean" && len(d.Running) > 0 && d.Exit == exitBusy
		require.True(h, d.Fault == "" || refused || d.takenDown(), "%s %v: %s", d.errand.Verb, d.errand.VMs, d.Fault)
	}
	for _, vm := range vms {
		var ops []porcupine.Operation
		for _, d := range h.done {
			if f, ok := h.fact(d, vm); ok {
				ops = append(ops, porcupine.Operation{ClientId: d.client, Input: f, Call: d.since(), Return: d.Ended})
			}
		}
		result := porcupine.CheckOperationsTimeout(register.ToModel(), ops, 2*time.Minute)
		require.Equal(h, porcupine.Ok, result, "no order of the commands explains what was seen of %s", vm)
	}
	h.checkCleans(vms)
}

// checkCleans holds what is done under the lock against one model of all VMs:
// a clean that is refused names those that run, each and no other.
func (h *history) checkCleans(vms []string) {
	h.Helper()
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{""} },
		Step: func(state, input, _ any) []any {
			d := input.(done)
			var now []string
			for _, vm := range vms {
				was := strings.Contains(state.(string), vm+" ")
				if d.errand.Verb == "up" && (was || d.touches(vm)) || d.errand.Verb == "clean" && was {
					now = append(now, vm+" ")
				}
			}
			after := strings.Join(now, "")
			switch {
			case d.takenDown():
				return []any{state, ""}
			case d.errand.Verb == "clean" && len(now) != len(d.Running), d.errand.Verb == "clean" && len(now) > 0 && strings.Join(d.Running, " ")+" " != after:
				return nil
			}
			return []any{after}
		},
	}
	var ops []porcupine.Operation
	for _, d := range h.done {
		if d.Accepted != 0 {
			ops = append(ops, porcupine.Operation{ClientId: d.client, Input: d, Call: d.since(), Return: d.Ended})
		}
	}
	require.Equal(h, porcupine.Ok, porcupine.CheckOperationsTimeout(model.ToModel(), ops, 2*time.Minute), "no order of the writers explains what cleans were refused for")
}

// Issue 5.4, fault B1: whatever commands run beside each other, what each sees
// and does is as if they had run one after the other.
func TestRandomCommandsSoak(t *testing.T) {
	t.Setenv("CASTRA_FAKE_LIFETIME", "20m")
	clients, rounds := soak.N(8, 32), soak.N(6, 50)
	w := newWorld(t, patient, vm("web", forward(freePort(t), 80)), vm("db"))
	h := &history{world: w}
	choices := []errand{{Verb: "up"}, {Verb: "up", VMs: []string{"web-0"}}, {Verb: "up", VMs: []string{"db-0"}}, {Verb: "down"}, {Verb: "clean"},
		{Verb: "status"}, {Verb: "status"}, {Verb: "ports"}}
	var group sync.WaitGroup
	for client := range clients {
		random := rand.New(rand.NewPCG(uint64(client), 4))
		group.Go(func() {
			for range rounds {
				e := choices[random.IntN(len(choices))]
				e.Options = w.options()
				_, wait := w.start(e)
				h.add(done{client, e, wait()})
			}
		})
	}
	group.Wait()
	h.check("web-0", "db-0")
	require.Empty(t, qemutest.Twins(t, w.fakes), "two QEMUs of one VM")
	running := 0
	for _, state := range w.states() {
		if strings.HasSuffix(state, " running") {
			running++
		}
	}
	soak.AtMost(t, "B1", "VMs that are not known", 0, float64(len(w.running())-running))
	w.journalIsWhole()
	w.down()
	w.cleanSlate()
	soak.AtLeast(t, "B1", "processes of random commands beside each other", 32, float64(clients))
	soak.AtLeast(t, "B1", "commands in a history that a sequence explains", 32*50, float64(len(h.done)))
	soak.AtMost(t, "B1", "times that two QEMUs of one VM ran", 0, float64(len(qemutest.Twins(t, w.fakes))))
}
