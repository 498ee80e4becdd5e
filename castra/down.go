package castra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/workspace"
)

// Down ends all VMs of the workspace at once, each by the power button, then
// SIGTERM, then SIGKILL, and discards their overlays. It works from the record
// of what was started, so VMs that castra.toml no longer names go too. When
// nothing runs it cleans up what a crash left, and succeeds.
func (p *Project) Down(ctx context.Context) error {
	ws, err := p.workspace()
	if err != nil {
		return err
	}
	if ws == nil {
		p.say(event.Summary{Command: "down", Text: "nothing runs"})
		return nil
	}
	c, err := p.begin(ctx, ws, "down")
	if err != nil {
		return err
	}
	defer c.end()
	summary, err := c.down(ctx)
	return c.finish(summary, err)
}

func (c *command) down(ctx context.Context) (string, error) {
	vms, err := c.traces()
	if err != nil {
		return "", err
	}
	if c.session.foreign != nil {
		c.warn("", c.session.foreign.Error(), "what runs is found by its pidfile, and ended; the record stays as it is")
	}
	ladder := fit(c.ladder(), ctx)
	var freed, stopped atomic.Int64
	err = parallel(vms, func(vm string) error {
		done, err := c.takeDown(ctx, vm, ladder, "down")
		freed.Add(done.freed)
		if done.changed {
			stopped.Add(1)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if stopped.Load() == 0 && freed.Load() == 0 {
		return "nothing ran", nil
	}
	return fmt.Sprintf("%s stopped, %s given back", count(int(stopped.Load()), "VM"), report.Bytes(freed.Load())), nil
}

// ladder is castra.toml's, or that on record where castra.toml is gone.
func (c *command) ladder() qemu.Ladder {
	if c.config != nil {
		l := c.config.Lifecycle
		return qemu.Ladder{Graceful: l.Graceful, Terminate: l.Terminate, Kill: l.Kill}
	}
	return qemu.Ladder(c.session.data.Waits)
}

// fit shortens a ladder so that it ends before ctx does: the last, surest step
// keeps its time longest.
func fit(l qemu.Ladder, ctx context.Context) qemu.Ladder { //nolint:revive // the ladder is what this is about
	deadline, ok := ctx.Deadline()
	if !ok {
		return l
	}
	left := max(time.Until(deadline)-reclaimTime, 0)
	for _, step := range []*time.Duration{&l.Kill, &l.Terminate, &l.Graceful} {
		*step = min(*step, left)
		left -= *step
	}
	return l
}

// reclaimTime is what removing a VM's files may take, besides ending it.
const reclaimTime = 500 * time.Millisecond

// traces names every VM that is on record or has left files.
func (c *command) traces() ([]string, error) {
	tracked, err := c.ws.TracedVMs()
	if err != nil {
		return nil, err
	}
	vms := append(c.session.names(), tracked...)
	slices.Sort(vms)
	return slices.Compact(vms), nil
}

// ended is what taking a VM down did.
type ended struct {
	changed bool  // it ran before
	freed   int64 // bytes
}

// takeDown ends one VM if it runs, and removes what it leaves. Its record goes
// last: what was not removed is found again by the next command.
func (c *command) takeDown(ctx context.Context, vm string, l qemu.Ladder, reason string) (ended, error) {
	began := time.Now()
	r, _ := c.session.get(vm)
	var first sync.Once
	var outcome string
	var err error
	c.during(vm, "power off", l.Graceful+l.Terminate+l.Kill, func() {
		outcome, err = qemu.Stop(ctx, target(c.ws.Layout, vm, r), l, func(e event.Event) { // called once it is known to run
			first.Do(func() {
				c.events.Emit(event.ShutdownRequested{VM: vm, Reason: reason})
				c.ending(vm, true)
			})
			c.events.Emit(e)
		})
	})
	if err != nil {
		return ended{}, &VMError{Op: c.name, VM: vm, Phase: "shutdown", Err: err, Next: "mage down tries again"}
	}
	done := ended{changed: outcome != qemu.NotRunning}
	why := "orphan"
	if done.changed {
		why = "shutdown"
	}
	c.events.Emit(event.Stopped{VM: vm, Outcome: outcome, TotalMS: time.Since(began).Milliseconds(), Changed: done.changed})
	if done.freed, err = c.reclaim(vm, r, why); err != nil {
		return done, &VMError{Op: c.name, VM: vm, Phase: "clean up", Err: err}
	}
	return done, nil
}

// ending puts on record that a VM is being taken down, or is not after all. A
// VM is ended also where there is no room to say so.
func (c *command) ending(vm string, now bool) {
	r, known := c.session.get(vm)
	if !known || r.Ending == now {
		return
	}
	r.Ending = now
	if err := c.session.put(r); err != nil {
		c.log().Debug("note that a VM ends", "vm", vm, "error", err)
	}
}

// reclaim removes what a VM that does not run has left: overlay, seed, firmware's variables, socket,
// pidfile, record. It tells the bytes given back.
func (c *command) reclaim(vm string, r workspace.VM, why string) (int64, error) {
	freed, err := c.discardOverlay(vm, r, why)
	err = errors.Join(err, c.ws.RemoveOwn(c.ws.Seed(vm)), c.ws.RemoveOwn(c.ws.Vars(vm)), removeSocket(c.ws, vm))
	if gone, pidErr := removePidfile(c.ws, vm); pidErr != nil || !gone {
		err = errors.Join(err, fmt.Errorf("pidfile %s is left", c.ws.Pidfile(vm)), cmp.Or(pidErr, qemu.Held(c.ws.Pidfile(vm))))
	}
	if err != nil {
		return freed, err
	}
	return freed, c.session.drop(vm)
}

// removePidfile removes a pidfile of the workspace that nobody holds, and tells
// whether it is gone.
func removePidfile(ws *workspace.Workspace, vm string) (bool, error) {
	root, err := ws.OpenRoot()
	if err != nil {
		return false, err
	}
	defer root.Close()
	return qemu.RemovePidfile(root, filepath.Base(ws.Pidfile(vm)))
}

// removeSocket removes a dead VM's monitor socket, and nothing that is no
// socket.
func removeSocket(ws *workspace.Workspace, vm string) error {
	st, err := os.Lstat(ws.Monitor(vm))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a socket of QEMU, so it is left; move it away", ws.Monitor(vm))
	}
	return ws.RemoveOwn(ws.Monitor(vm))
}
