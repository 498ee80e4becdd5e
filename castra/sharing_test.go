package castra

import (
	"context"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
	"castra.example/castra/castra/internal/workspace"
)

// set is the world's castra.toml with its state elsewhere: set n of its VMs.
func (w *world) set(n int) Options {
	o := w.options()
	o.StateDir = filepath.Join(filepath.Dir(w.dir), fmt.Sprintf("set-%d", n))
	return o
}

// atOnce does n errands beside each other, and gives their outcomes in order.
func (w *world) atOnce(n int, e func(i int) errand) []outcome {
	w.Helper()
	outcomes := make([]outcome, n)
	var group sync.WaitGroup
	for i := range n {
		_, wait := w.start(e(i))
		group.Go(func() { outcomes[i] = wait() })
	}
	group.Wait()
	return outcomes
}

// Fault B9: of several that want one port one has it, and the others are told
// whose it is, also where the port was free when they looked.
func TestRacingUpsSoak(t *testing.T) {
	ups, ports := soak.N(10, 50), soak.N(2, 10)
	w := newWorld(t, patient)
	worlds := make([]*world, ups)
	numbers := make([]int, ports)
	for i := range numbers {
		numbers[i] = freePort(t)
	}
	for i := range worlds {
		other := *w
		other.dir = filepath.Join(filepath.Dir(w.dir), fmt.Sprintf("project-%d", i))
		require.NoError(t, os.Mkdir(other.dir, 0o700))
		other.write("castra.toml", fmt.Sprintf("version = \"0.2\"\n[project]\nname = \"p%d\"\n[lifecycle]\n%s\n", i, patient)+
			strings.ReplaceAll(vm("web", forward(numbers[i%ports], 80), "[[vms.port_forwards]]\nguest = 81"), "base.qcow2", w.base))
		worlds[i] = &other
	}
	outcomes := w.atOnce(ups, func(i int) errand { return errand{Verb: "up", Options: worlds[i].options()} })
	winners := map[int]*world{}
	auto := map[int]bool{}
	for i, out := range outcomes {
		if out.Fault != "" {
			continue
		}
		port := numbers[i%ports]
		require.Nil(t, winners[port], "two have port %d", port)
		winners[port] = worlds[i]
		for _, f := range worlds[i].status("web-0").Forwards {
			require.False(t, auto[f.HostPort], "two have port %d", f.HostPort)
			auto[f.HostPort] = true
		}
	}
	require.Len(t, winners, ports, "of each port somebody is the first")
	named, behind := 0, 0
	for i, out := range outcomes {
		if out.Fault == "" {
			continue
		}
		port := numbers[i%ports]
		require.Contains(t, out.Fault, fmt.Sprintf("127.0.0.1:%d: the port is held by %s (", port, heldBy("web-0", winners[port].open().id)), out.Fault)
		require.Contains(t, out.Hint, "CASTRA_WORKSPACE="+winners[port].open().id)
		named++
		if strings.Contains(out.Fault, refusedForward) {
			behind++
		}
		require.Equal(t, []string{"web-0 stopped"}, worlds[i].states())
	}
	t.Logf("%d of the refused had found their port free", behind)
	require.Len(t, w.running(), ports)
	for _, out := range w.atOnce(ups, func(i int) errand { return errand{Verb: "down", Options: worlds[i].options()} }) {
		require.Empty(t, out.Fault)
	}
	for _, other := range worlds {
		other.cleanSlate()
	}
	soak.AtLeast(t, "B9", "ups that raced for 10 ports", 50, float64(ups))
	soak.AtMost(t, "B9", "refused ups that were not told whose the port is", 0, float64(ups-ports-named))
}

// Fault B9: a listener that is not Castra's, before the check and behind it.
func TestForeignListeners(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		for _, kind := range []event.Kind{"", "vm.overlay.prepared"} {
			t.Run(address+" "+string(kind), func(t *testing.T) {
				port := freePort(t)
				w := newWorld(t, patient, vm("web", forward(port, 80)))
				var foreign net.Listener
				listen := func() {
					var err error
					foreign, err = new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(address, fmt.Sprint(port)))
					require.NoError(t, err)
				}
				w.events.on(func(e event.Event) {
					if e.Kind() == kind {
						listen()
					}
				})
				if kind == "" {
					listen()
				}
				err := w.open().Up(t.Context(), UpOptions{})
				w.events.on(nil)
				require.NotNil(t, foreign)
				var taken *PortError
				require.ErrorAs(t, err, &taken)
				require.ErrorContains(t, err, fmt.Sprintf("held by pid %d (", os.Getpid()))
				require.Equal(t, exitFailed, exitStatus(err))
				require.NotEmpty(t, hint(err))
				w.cleanSlate()
				require.NoError(t, foreign.Close())
				w.up()
				w.down()
			})
		}
	}
}

// imageUser is one workspace of several whose VM boots from one image.
type imageUser struct {
	*world
	options Options
	base    string // while its VM runs
	id      os.FileInfo
	lost    int // times that the image of a running VM was gone
}

func (u *imageUser) do(e errand) outcome {
	e.Options = u.options
	_, wait := u.start(e)
	out := wait()
	if u.base != "" {
		if now, err := os.Stat(u.base); err != nil || !os.SameFile(now, u.id) {
			u.lost++
		}
	}
	return out
}

// up notes what the VM runs from.
func (u *imageUser) up() {
	out := u.do(errand{Verb: "up"})
	if !assert.Empty(u, out.Fault) {
		return
	}
	ws, err := workspace.Open(u.options.StateDir)
	if assert.NoError(u, err) {
		s, err := ws.LoadSession()
		assert.NoError(u, err)
		u.base = s.VMs["web-0"].Overlay.BaseImage
		u.id, err = os.Stat(u.base)
		if err != nil {
			u.lost++
			u.base = ""
		}
	}
}

// Fault B10: whoever cleans and prunes, what a VM runs from stays.
func TestOneImageStoreSoak(t *testing.T) {
	users, wanted := soak.N(4, 8), soak.N(10, 50)
	w := newWorld(t, patient)
	server := w.serve(mustRead(t, w.base))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	t.Setenv("SSL_CERT_FILE", ca)
	w.configure(patient, server.vm("web"))
	var mu sync.Mutex
	var lost, removed, cleaned int
	var group sync.WaitGroup
	for i := range users {
		u := &imageUser{world: w, options: w.set(i)}
		random := rand.New(rand.NewPCG(uint64(i), 10))
		group.Go(func() {
			for range 2 * wanted { // a bound: about one in two of these cleans or prunes
				u.up()
				if random.IntN(2) == 0 {
					out := u.do(errand{Verb: "clean"})
					assert.Equal(t, exitBusy, out.Exit, out.Fault)
				}
				base := u.base
				u.base = ""
				assert.Empty(t, u.do(errand{Verb: "down"}).Fault)
				out := u.do(errand{Verb: "prune", Prune: PruneOptions{Images: true}})
				assert.Contains(t, []int{0, exitBusy}, out.Exit, out.Fault)
				mu.Lock()
				cleaned++
				lost += u.lost
				u.lost = 0
				for _, item := range out.Pruned.Items {
					if item.Kind == "image" && strings.HasPrefix(base, item.Path) {
						removed++
					}
				}
				enough := cleaned >= wanted
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	group.Wait()
	require.Empty(t, w.running())
	for i := range users {
		w.setSlate(i)
	}
	t.Logf("%d prunes removed the image, and it was fetched %d times", removed, server.bodies.Load())
	soak.AtLeast(t, "B10", "workspaces on one image store", 8, float64(users))
	soak.AtLeast(t, "B10", "cleans and prunes beside them", 50, float64(cleaned))
	soak.AtMost(t, "B10", "images removed that a VM ran from", 0, float64(lost))
}

// setSlate: nothing of the VMs of set i is left.
func (w *world) setSlate(i int) {
	w.Helper()
	ws, err := workspace.Open(w.set(i).StateDir)
	require.NoError(w, err)
	s, err := ws.LoadSession()
	require.NoError(w, err)
	require.Empty(w, s.VMs)
	left, err := filepath.Glob(filepath.Join(ws.Overlays(), "*"))
	require.NoError(w, err)
	require.Empty(w, left)
}

// Fault B10: between finding an image and putting on record that a VM runs from
// it, an up cannot lose it: a prune waits; and what went before that is had again.
func TestPruneBesideAnUpThatBegins(t *testing.T) {
	w := newWorld(t, patient)
	server := w.serve(mustRead(t, w.base))
	w.configure(patient, server.vm("web"))
	prune := func() (*PruneReport, error) {
		o := w.set(1)
		all, err := OpenWorkspaces(o, Selection{}, nil)
		require.NoError(t, err)
		return all.Prune(t.Context(), PruneOptions{Images: true})
	}
	var group sync.WaitGroup
	var report *PruneReport
	var pruneErr error
	w.events.on(func(e event.Event) {
		switch {
		case e.Kind() == "image.verified" && server.bodies.Load() == 1:
			stored, err := image.All(w.home)
			require.NoError(t, err)
			_, err = image.Remove(w.home, stored[0]) // as one that had looked before
			require.NoError(t, err)
		case e.Kind() == "vm.start.chosen":
			group.Go(func() { report, pruneErr = prune() })
		}
	})
	w.up()
	w.events.on(nil)
	group.Wait()
	require.NoError(t, pruneErr)
	for _, item := range report.Items {
		require.NotEqual(t, "image", item.Kind)
	}
	require.EqualValues(t, 2, server.bodies.Load())
	base := w.session().VMs["web-0"].Overlay.BaseImage
	require.FileExists(t, base)

	require.NoError(t, os.Remove(w.layout().Session()), "whose image it is, QEMU alone can tell now")
	_, err := prune()
	require.NoError(t, err)
	require.FileExists(t, base)
	w.down()
	_, err = prune()
	require.NoError(t, err)
	require.NoFileExists(t, base)
}

// Fault B10: an up and a prune of images wait for each other.
func TestUpAndPruneWaitForEachOther(t *testing.T) {
	w := newWorld(t, patient)
	server := w.serve(mustRead(t, w.base))
	w.configure(patient, server.vm("web"))
	w.up()
	w.down()
	brief := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	release, err := image.Alone(t.Context(), w.home)
	require.NoError(t, err)
	w.events.forget()
	require.ErrorIs(t, w.open().Up(brief(), UpOptions{}), context.DeadlineExceeded)
	require.NotContains(t, w.events.story("web-0"), "vm.overlay.prepared")
	release()
	release, err = image.Keep(t.Context(), w.home)
	require.NoError(t, err)
	_, err = w.one(false).Prune(brief(), PruneOptions{Images: true})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	stored, err := image.All(w.home)
	require.NoError(t, err)
	require.Len(t, stored, 1)
	w.up()
	release()
	w.down()
}

// Issue 5.4: many first ups at once make one template and share it, and prunes
// beside them neither break one nor are broken; each workspace is in the index.
func TestTemplatesAtOnceSoak(t *testing.T) {
	sets, rounds := soak.N(4, 12), soak.N(2, 5)
	w := newWarmWorld(t, vm("web"))
	t.Setenv("CASTRA_FAKE_LIFETIME", "20m")
	started := map[string]int{}
	for round := range rounds {
		prunes := make([]errand, 2)
		for i := range prunes {
			prunes[i] = errand{Verb: "prune", Options: w.options(), Prune: PruneOptions{Templates: true, KeepLogs: true}}
		}
		outcomes := w.atOnce(sets+len(prunes), func(i int) errand {
			if i >= sets {
				return prunes[i-sets]
			}
			return errand{Verb: "up", Options: w.set(i)}
		})
		for i, out := range outcomes {
			require.Empty(t, out.Fault, "round %d, %d", round, i)
			for _, r := range out.Events {
				if e, ok := r.Event.(event.StartChosen); ok {
					started[e.Start]++
				}
				if e, ok := r.Event.(event.Message); ok {
					require.NotEqual(t, "warning", e.Level, "%s (%s)", e.Text, e.Hint)
				}
			}
		}
		require.Len(t, w.running(), sets)
		all := w.everywhere(Selection{All: true})
		require.Len(t, all.Projects, sets, "each is in the index")
		for _, seen := range w.seen(all) {
			require.Equal(t, "scratch web-0 running", seen)
		}
		for i, out := range w.atOnce(sets, func(i int) errand { return errand{Verb: "down", Options: w.set(i)} }) {
			require.Empty(t, out.Fault)
			w.setSlate(i)
		}
		whole, left := w.templates()
		require.LessOrEqual(t, len(whole), 1, "all are alike")
		require.Empty(t, left)
	}
	for i, want := range []string{"", startRAM} { // with nobody beside, what has been made is used
		out := w.atOnce(1, func(int) errand { return errand{Verb: "up", Options: w.set(i)} })[0]
		require.Empty(t, out.Fault)
		for _, r := range out.Events {
			if e, ok := r.Event.(event.StartChosen); ok && want != "" {
				require.Equal(t, want, e.Start, e.Reason)
			}
		}
	}
	w.atOnce(2, func(i int) errand { return errand{Verb: "down", Options: w.set(i)} })
	require.Empty(t, qemutest.Twins(t, w.fakes))
	t.Logf("%d ups in %d rounds: %v", sets*rounds, rounds, started)
	soak.AtLeast(t, "B10", "first ups at once that share a template", 12, float64(sets))
}
