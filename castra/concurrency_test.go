package castra

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/soak"
	"castra.example/castra/castra/internal/workspace"
)

// beside runs second while first holds the workspace: it begins when first
// has launched a VM, and first goes on when second has said that it waits.
func (w *world) beside(first, second func(p *Project) error) (waited string, err1, err2 error) {
	w.Helper()
	var group sync.WaitGroup
	defer group.Wait()
	waits := make(chan string, 1)
	late := &recorder{}
	late.on(func(e event.Event) {
		if m, ok := e.(event.Message); ok && strings.HasPrefix(m.Text, "waiting for ") {
			waits <- m.Text
		}
	})
	ended := make(chan error, 1)
	var once sync.Once
	w.events.on(func(e event.Event) {
		if e.Kind() != "vm.launched" {
			return
		}
		once.Do(func() {
			p := w.open()
			p.Reporter = late
			group.Go(func() { ended <- second(p) })
			waited = <-waits
		})
	})
	err1 = first(w.open())
	w.events.on(nil)
	require.NotEmpty(w, waited, "the first has launched nothing: %v", err1)
	return waited, err1, <-ended
}

func TestTwoUpsAtOnce(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	up := func(p *Project) error { return p.Up(t.Context(), UpOptions{}) }
	waited, err1, err2 := w.beside(up, up)
	require.NoError(t, err1)
	require.NoError(t, err2)
	require.Contains(t, waited, fmt.Sprintf(`waiting for "mage up" (pid %d, since `, os.Getpid()))
	require.Contains(t, waited, "at most 10m0s")
	require.Len(t, w.running(), 2)
	w.down()
	w.cleanSlate()
}

func TestUpBesideDown(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	waited, err1, err2 := w.beside(
		func(p *Project) error { return p.Up(t.Context(), UpOptions{}) },
		func(p *Project) error { return p.Down(t.Context()) })
	var by *workspace.TakenDownError
	require.ErrorAs(t, err1, &by)
	require.NotErrorIs(t, err1, context.Canceled, "what the end of ctx made of it is no news")
	require.Equal(t, workspace.Holder{PID: os.Getpid(), Command: "mage down", Since: by.By.Since}, by.By)
	require.Equal(t, exitBusy, exitStatus(err1))
	require.NoError(t, err2)
	require.Contains(t, waited, `"mage up"`)
	w.cleanSlate()
	w.up()
	w.down()
}

// B3: at whatever moment a down comes, it waits for no boot and no bootstrap,
// and is what lasts.
func TestDownWinsSoak(t *testing.T) {
	w := newWorld(t, patient)
	w.configure(patient, w.bootstrapped("web", "exec sleep 60"), vm("db"))
	w.personality("slow-boot=150ms")
	timings := soak.N(4, 20)
	var slowest time.Duration
	for i := range timings {
		ended := make(chan error, 1)
		p := w.open()
		go func() { ended <- p.Up(t.Context(), UpOptions{}) }()
		select {
		case <-time.After(time.Duration(i) * 600 * time.Millisecond / time.Duration(timings)):
		case err := <-ended:
			require.Fail(t, "up has ended by itself", "%v", err)
		}
		// a down before there is a workspace has nothing to ask for
		require.Eventually(t, func() bool { _, err := workspace.Open(w.layout().Root); return err == nil }, time.Minute, time.Millisecond)
		for up := error(nil); up == nil; { // a down that was first, by a hair, takes down nothing
			began := time.Now()
			require.NoError(t, w.open().Down(t.Context()))
			slowest = max(slowest, time.Since(began))
			select {
			case up = <-ended:
				require.ErrorAs(t, up, new(*workspace.TakenDownError))
			case <-time.After(5 * time.Second):
			}
		}
		w.cleanSlate()
	}
	soak.AtLeast(t, "B3", "timings of a down beside an up", 20, float64(timings))
	soak.Figure(t, "B3", "slowest of these downs", 5.5, slowest.Seconds(), " s")
}

// B3: a down also ends an up that has yet to fetch its images.
func TestDownBesideADownload(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	w.down()
	server := w.serve(nil)
	asked := make(chan struct{}, 16)
	server.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	w.configure(patient, server.vm("web"))
	ended := make(chan error, 1)
	go func() { ended <- w.open().Up(t.Context(), UpOptions{}) }()
	<-asked
	require.NoError(t, w.open().Down(t.Context()))
	require.ErrorAs(t, <-ended, new(*workspace.TakenDownError))
	w.cleanSlate()
}

// A command that gives up waiting for another leaves it alone.
func TestCancelledWhileWaiting(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	ctx, cancel := w.cancellable()
	_, err1, err2 := w.beside(
		func(p *Project) error { return p.Up(t.Context(), UpOptions{}) },
		func(p *Project) error {
			cancelOn(p, "message", cancel)
			return p.Up(ctx, UpOptions{})
		})
	require.NoError(t, err1)
	require.ErrorIs(t, err2, context.Canceled)
	require.ErrorContains(t, err2, "lock workspace ")
	require.Equal(t, "running", w.status("web-0").State)
	w.down()
	w.cleanSlate()
}

// cancelOn calls cancel when the first event of that kind has been heard.
func cancelOn(p *Project, kind event.Kind, cancel func()) {
	next := p.Reporter
	p.Reporter = reporterFunc(func(r event.Record) {
		next.Report(r)
		if r.Event.Kind() == kind {
			cancel()
		}
	})
}

type reporterFunc func(event.Record)

func (f reporterFunc) Report(r event.Record) { f(r) }

// A2: wherever an up is interrupted, what it started is taken down again.
func TestUpCancelled(t *testing.T) {
	for _, kind := range []event.Kind{
		"", "command.accepted", "message", "vm.overlay.prepared", "vm.start.chosen", "vm.launched", "vm.ready",
		"bootstrap.planned", "bootstrap.started", "bootstrap.output",
	} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t, patient)
			w.personality("slow-boot=200ms")
			if kind == "vm.launched" { // ended in the middle of the wait
				w.personality("slow-boot=60s")
			}
			w.configure(patient, w.bootstrapped("web", "echo begun\nexec sleep 60"), vm("db"))
			ctx, cancel := w.cancellable()
			p := w.open()
			if kind == "" {
				cancel()
			}
			cancelOn(p, kind, cancel)
			err := p.Up(ctx, UpOptions{})
			require.ErrorIs(t, err, context.Canceled)
			w.cleanSlate()
			w.personality("")
			w.configure(patient, w.bootstrapped("web", ":"), vm("db"))
			w.up()
			w.down()
			w.cleanSlate()
		})
	}
}

// What ran before an up that is interrupted goes on running.
func TestUpCancelledSparesWhatRan(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up("db")
	w.personality("slow-boot=60s")
	ctx, cancel := w.cancellable()
	p := w.open()
	cancelOn(p, "vm.launched", cancel)
	require.ErrorIs(t, p.Up(ctx, UpOptions{}), context.Canceled)
	require.Equal(t, []string{"web-0 stopped", "db-0 running"}, w.states())
	w.down()
	w.cleanSlate()
}

// B1, B2: looking takes no lock and writes nothing, at any moment of an up.
func TestLookingWritesNothing(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.personality("slow-boot=60s")
	ctx, cancel := w.cancellable()
	looked := 0
	look := func() {
		before := snapshot(t, w.home)
		for range 3 {
			s, err := w.open().Status(t.Context())
			require.NoError(t, err)
			require.Len(t, s.VMs, 1)
			_, err = w.open().Ports(t.Context())
			require.NoError(t, err)
			_, err = w.open().Plan(t.Context(), UpOptions{})
			require.NoError(t, err)
		}
		require.Equal(t, before, snapshot(t, w.home))
		looked++
	}
	w.events.on(func(e event.Event) {
		switch e.Kind() {
		case "command.accepted", "vm.overlay.prepared", "vm.start.chosen", "vm.launched": // the up stands still meanwhile
			look()
		}
		if e.Kind() == "vm.launched" {
			require.Equal(t, "booting", w.status("web-0").State)
			cancel()
		}
	})
	require.ErrorIs(t, w.open().Up(ctx, UpOptions{}), context.Canceled)
	w.events.on(nil)
	require.Equal(t, 4, looked)
	look()
	w.cleanSlate()
}
