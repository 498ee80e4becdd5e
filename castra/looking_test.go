package castra

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

// Fault B2: looking at VMs that come and go takes nothing away from them, and
// tells of no crash where there was none.
func TestStatusBesideUpsSoak(t *testing.T) {
	looks, ups := soak.N(100, 1000), soak.N(5, 50)
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up()
	w.down()
	var looked, wrong atomic.Int64
	stop := make(chan struct{})
	var lookers sync.WaitGroup
	for range 2 {
		lookers.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond) // or they would leave the ups no core
			defer tick.Stop()
			for {
				s, err := w.open().Status(t.Context())
				if assert.NoError(t, err) {
					for _, vm := range s.VMs {
						truth := []string{"stopped", "booting", "running", "not responding", "shutdown"}
						if !assert.Contains(t, truth, vm.State, vm.Problem) || vm.State == "running" && vm.SSH == "" {
							wrong.Add(1)
						}
					}
				}
				looked.Add(1)
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	for n := 0; n < ups || int(looked.Load()) < looks; n++ {
		require.Less(t, n, 20*ups, "nobody looks")
		require.Empty(t, w.errand("up").Fault)
		states := w.states()
		require.Equal(t, []string{"web-0 running", "db-0 running"}, states, "a VM is lost")
		require.Len(t, w.running(), 2)
		require.Empty(t, w.errand("down").Fault)
		require.Empty(t, w.running())
	}
	close(stop)
	lookers.Wait()
	require.Empty(t, qemutest.Twins(t, w.fakes))
	w.cleanSlate()
	soak.AtLeast(t, "B2", "statuses beside ups", 1000, float64(looked.Load()))
	soak.AtMost(t, "B2", "of them with a wrong state", 0, float64(wrong.Load()))
}

// Fault B2: what does not answer in one workspace holds up no other.
func TestStatusOfHungVMsSoak(t *testing.T) {
	workspaces, hung := soak.N(8, 64), soak.N(2, 8)
	w := newWorld(t, hasty, vm("web"))
	t.Setenv("CASTRA_FAKE_LIFETIME", "20m")
	var stuck []string
	for first := 0; first < workspaces; first += 8 {
		for i, out := range w.atOnce(8, func(i int) errand { return errand{Verb: "up", Options: w.set(first + i)} }) {
			require.Empty(t, out.Fault)
			if n := first + i; n < hung {
				p := w.openWith(w.set(n))
				s, err := p.Status(t.Context())
				require.NoError(t, err)
				w.signal(s.VMs[0].PID, syscall.SIGSTOP)
				stuck = append(stuck, p.id)
			}
		}
	}
	var slowest time.Duration
	for range 3 {
		all := w.everywhere(Selection{All: true})
		began := time.Now()
		report, err := all.Status(t.Context())
		slowest = max(slowest, time.Since(began))
		require.NoError(t, err)
		require.Len(t, report.Workspaces, workspaces)
		for _, s := range report.Workspaces {
			if slices.Contains(stuck, s.Workspace) {
				require.Equal(t, "not responding", s.VMs[0].State)
				require.NotZero(t, s.VMs[0].PID)
			}
		}
	}
	soak.AtLeast(t, "B2", "workspaces looked at", 64, float64(workspaces))
	soak.AtLeast(t, "B2", "of them with a hung VM", 8, float64(len(stuck)))
	soak.Figure(t, "B2", "status of all", 1, slowest.Seconds(), " s")
	for _, pid := range w.running() {
		w.signal(pid, syscall.SIGKILL)
	}
	require.Eventually(t, func() bool { return len(w.running()) == 0 }, patience, poll)
}
