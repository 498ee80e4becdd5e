package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// abandoned are the directories of templates that somebody began to make and
// does not make any more.
func (p *warmProject) abandoned() (dirs []string) {
	p.t.Helper()
	for _, dir := range p.glob(".new-*") {
		f, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			dirs = append(dirs, dir)
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			dirs = append(dirs, dir)
		}
		f.Close()
	}
	return dirs
}

// killUp kills an up when it has come to a point and then lets some time pass.
// It tells whether up had ended before.
func (p *warmProject) killUp(reached func() bool, then time.Duration) bool {
	p.t.Helper()
	p.forget()
	cmd, _, _ := p.command(context.Background(), "up")
	require.NoError(p.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit, tick := time.After(verbLimit), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return true
		case <-limit:
			require.NoError(p.t, cmd.Process.Kill())
			require.Fail(p.t, "up does not come to the point")
		case <-tick.C:
		}
		if reached() {
			break
		}
	}
	select {
	case <-ended:
		return true
	case <-time.After(then):
	}
	require.NoError(p.t, cmd.Process.Kill())
	<-ended
	return false
}

// recovers asserts that nothing hinders whoever comes after a kill.
func (p *warmProject) recovers() {
	p.t.Helper()
	p.up()
	require.Equal(p.t, "vm-0\nrun\n", p.must("exec", "vm", "hostname; cat /root/runs").stdout)
	p.clock("vm")
	vm := p.status()["vm-0"]
	require.Equal(p.t, "running", vm.State, vm.Problem)
	require.Len(p.t, p.qemus(), 1)
	require.Empty(p.t, p.abandoned())
	p.forget()
	p.must("down")
	p.cleanSlate()
}

// happened tells that events.jsonl holds a kind of event since forget.
func (p *warmProject) happened(kind string) bool {
	b, err := os.ReadFile(p.state("logs", "events.jsonl"))
	return err == nil && strings.Contains(string(b[min(p.read, int64(len(b))):]), `"`+kind+`"`)
}

// kill -9 of an up that boots, saves, runs bootstrap and saves again: the next
// one works. Each time there are no templates at first.
func TestWarmKilledWhileSaving(t *testing.T) {
	t.Parallel()
	p := newWarm(t, oneVM+scripted)
	p.write("run.sh", "#!/bin/sh\nset -e\n[ -e /root/runs ] || echo run >/root/runs\n")
	launched := func() bool { return p.happened("vm.launched") }
	saves := func() bool { return len(p.glob(".new-*")) > 0 }
	savesAgain := func() bool { return p.happened("vm.template.saved") && saves() }
	for _, point := range []struct {
		name    string
		reached func() bool
		then    time.Duration
	}{
		{"boot", launched, time.Second},
		{"save at once", saves, 0},
		{"save, 40 ms", saves, 40 * time.Millisecond},
		{"save, 100 ms", saves, 100 * time.Millisecond},
		{"save, 180 ms", saves, 180 * time.Millisecond},
		{"second save at once", savesAgain, 0},
		{"second save, 60 ms", savesAgain, 60 * time.Millisecond},
		{"second save, 150 ms", savesAgain, 150 * time.Millisecond},
	} {
		p.part(point.name, func() {
			p.newHome()
			early := p.killUp(point.reached, point.then)
			p.t.Log("up had ended:", early)
			p.recovers()
		})
	}
}

// kill -9 of an up that restores: the next one works, and restores again.
func TestWarmKilledWhileRestoring(t *testing.T) {
	t.Parallel()
	const points = 12
	p := newWarm(t, oneVM+scripted)
	p.write("run.sh", "#!/bin/sh\nset -e\necho run >>/root/runs\n")
	p.up()
	p.down()
	began := time.Now()
	p.requireStart(p.up()["vm-0"], "ram", "bootstrapped")
	took := time.Since(began)
	p.down()
	before := p.sums()
	for n := range points {
		early := p.killUp(func() bool { return true }, took*time.Duration(n)/points)
		t.Logf("point %d, up had ended: %v", n, early)
		p.recovers()
	}
	p.requireStart(p.up()["vm-0"], "ram", "bootstrapped")
	require.Empty(t, p.warned())
	p.down()
	require.Equal(t, before, p.sums())
	require.Empty(t, p.glob(".bad-*"), "a kill damages no template")
}

// Two ups of one project and one of another, all at once with the same
// templates: each VM runs once, at first booted and then restored.
func TestWarmUpsAtOnce(t *testing.T) {
	t.Parallel()
	p := newWarm(t, oneVM)
	other := p.beside(oneVM)
	for _, kind := range []string{"cold", "ram", "ram"} {
		p.forget()
		other.forget()
		var ends []func()
		for _, who := range []*warmProject{p, p, other} {
			cmd, _, stderr := who.command(context.Background(), "up")
			require.NoError(t, cmd.Start())
			ends = append(ends, func() { require.NoError(t, cmd.Wait(), stderr) })
		}
		for _, end := range ends {
			end()
		}
		for _, who := range []*warmProject{p, other} {
			require.Equal(t, kind, who.starts()["vm-0"].Start, "%+v", who.warned())
			require.Empty(t, who.warned())
			require.Len(t, who.qemus(), 1)
			require.Equal(t, "vm-0\n", who.must("exec", "vm", "hostname").stdout)
			who.clock("vm")
		}
		p.down()
		other.down()
	}
	require.Empty(t, p.abandoned())
}
