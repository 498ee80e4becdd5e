package castra

import (
	"context"
	"path/filepath"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/workspace"
)

// Clean removes the workspace's cached images, overlays, logs, pidfiles and
// session, and tells the bytes given back. While VMs run it is a
// *RunningError; with Options.Force it takes them down first. What Castra did
// not make stays, and so do the workspace's key and the images shared by all
// projects.
func (p *Project) Clean(ctx context.Context) error {
	ws, err := p.workspace()
	if err != nil {
		return err
	}
	if ws == nil {
		p.say(event.Summary{Command: "clean", Text: "nothing to remove"})
		return nil
	}
	c, err := p.begin(ctx, ws, "clean")
	if err != nil {
		return err
	}
	defer c.end()
	summary, err := c.clean(ctx)
	return c.finish(summary, err)
}

func (c *command) clean(ctx context.Context) (string, error) {
	vms, err := c.traces()
	if err != nil {
		return "", err
	}
	var running []string
	for _, vm := range vms {
		r, _ := c.session.get(vm)
		if qemu.Inspect(ctx, target(c.ws.Layout, vm, r)).Alive() {
			running = append(running, vm)
		}
	}
	if len(running) > 0 && !c.options.Force {
		return "", &RunningError{running}
	}
	if _, err := c.down(ctx); err != nil {
		return "", err
	}
	items, err := c.ws.Removable()
	if err != nil {
		return "", err
	}
	var freed int64
	err = c.ws.Clean(items, func(item workspace.Item) {
		freed += item.Bytes
		c.events.Emit(event.Cleanup{Path: filepath.Join(c.ws.Root, item.Path), What: item.Kind, Bytes: item.Bytes})
	})
	if len(items) == 0 {
		return "nothing to remove", err
	}
	return report.Bytes(freed) + " given back", err
}
