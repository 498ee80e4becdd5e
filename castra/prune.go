package castra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/workspace"
)

// PruneOptions say what Prune removes. The zero value is what Clean removes.
type PruneOptions struct {
	// DryRun removes nothing: the report tells what would go.
	DryRun bool
	// KeepLogs leaves the logs.
	KeepLogs bool
	// KeepOverlays leaves overlays, and the record that tells whose they are.
	KeepOverlays bool
	// Images removes those of the images that all projects share that no VM
	// runs from. They are made again when needed.
	Images bool
	// Templates removes the warm-start templates of all projects that no VM runs from,
	// and what is left of damaged ones.
	Templates bool
}

// PruneReport tells what was removed or, of a dry run, what would be.
type PruneReport struct {
	DryRun bool         `json:"dry_run"`
	Items  []PrunedItem `json:"items"`
	Bytes  int64        `json:"bytes"`
	// Running VMs keep a run that is not a dry one from removing anything.
	Running []string `json:"running"`
}

// PrunedItem is one file, or a directory with all below it.
type PrunedItem struct {
	Workspace string `json:"workspace,omitempty"`
	Path      string `json:"path"`
	Kind      string `json:"kind"` // image, template, overlay, log, bootstrap, record, socket, pidfile, legacy, staged
	Bytes     int64  `json:"bytes"`
}

// Prune removes cache from all the workspaces, and tells what. While VMs run in
// any of them it is a *RunningError that names them all, and nothing is removed;
// with Options.Force they are taken down first. A fault in one workspace does
// not spare the others; all are joined.
func (w *Workspaces) Prune(ctx context.Context, o PruneOptions) (*PruneReport, error) {
	out := &PruneReport{DryRun: o.DryRun, Items: []PrunedItem{}, Running: []string{}}
	var faults []error
	force := true
	for _, p := range w.Projects {
		names, err := p.runningVMs(ctx)
		faults = append(faults, err)
		for _, name := range names {
			out.Running = append(out.Running, p.id+"/"+name)
		}
		force = force && p.options.Force
	}
	if len(out.Running) > 0 && !force && !o.DryRun {
		return out, &RunningError{out.Running}
	}
	for _, p := range w.Projects {
		items, err := p.prune(ctx, "prune", o)
		out.add(items...)
		faults = append(faults, err)
	}
	if o.Images {
		items, err := pruneImages(ctx, w.home, o.DryRun)
		out.add(items...)
		faults = append(faults, err)
	}
	if o.Templates {
		items, err := pruneTemplates(w.home, o.DryRun)
		out.add(items...)
		faults = append(faults, err)
	}
	return out, errors.Join(faults...)
}

func (r *PruneReport) add(items ...PrunedItem) {
	for _, item := range items {
		if item.Workspace == "" && slices.ContainsFunc(r.Items, func(i PrunedItem) bool { return i.Path == item.Path }) {
			continue // of the home, which every workspace has seen to
		}
		r.Items = append(r.Items, item)
		r.Bytes += item.Bytes
	}
}

// prune removes cache of one workspace on behalf of a verb.
func (p *Project) prune(ctx context.Context, verb string, o PruneOptions) ([]PrunedItem, error) {
	ws, err := p.workspace()
	if err != nil {
		return nil, err
	}
	if ws == nil {
		p.say(event.Summary{Command: verb, Text: "nothing to remove"})
		return nil, nil
	}
	if o.DryRun {
		session, err := ws.LoadSession()
		if err != nil && !as[*workspace.RecordError](err) {
			return nil, err
		}
		return p.planned(ctx, ws, session, o)
	}
	c, err := p.begin(ctx, ws, verb)
	if err != nil {
		return nil, err
	}
	defer c.end()
	items, err := c.prune(ctx, o)
	var freed int64
	for _, item := range items {
		freed += item.Bytes
	}
	summary := "nothing to remove"
	if len(items) > 0 {
		summary = report.Bytes(freed) + " given back"
	}
	return items, c.finish(summary, err)
}

// planned is what prune would remove. While VMs run it would remove nothing, but
// by force.
func (p *Project) planned(ctx context.Context, ws *workspace.Workspace, session *workspace.Session, o PruneOptions) ([]PrunedItem, error) {
	all, leftErr := leftovers(ws, p.home)
	var running []string
	var err error
	if p.options.Force {
		if running, err = p.runningVMs(ctx); err != nil {
			return nil, err
		}
	}
	items, err := p.prunable(ws, session, o, running)
	for _, item := range items {
		if !covers(all, item.Path) {
			all = append(all, item)
		}
	}
	return all, errors.Join(leftErr, err)
}

// prune finds what is to go before anything does, so that it is what a dry run
// tells, and gives what went.
func (c *command) prune(ctx context.Context, o PruneOptions) ([]PrunedItem, error) {
	if c.session.foreign != nil {
		return nil, c.session.foreign
	}
	running, err := c.runningVMs(ctx)
	if err != nil {
		return nil, err
	}
	if len(running) > 0 && !c.options.Force {
		return nil, &RunningError{running}
	}
	planned, err := c.prunable(c.ws, c.session.data, o, running)
	if err != nil {
		return nil, err
	}
	if len(running) > 0 || !o.KeepOverlays {
		if _, err := c.down(ctx); err != nil {
			return nil, err
		}
	}
	err = c.remove(o)
	gone := c.tidied
	for _, item := range planned {
		if _, statErr := os.Lstat(item.Path); errors.Is(statErr, os.ErrNotExist) {
			gone = append(gone, item)
			c.events.Emit(event.Cleanup{Path: item.Path, What: item.Kind, Bytes: item.Bytes})
		}
	}
	return gone, err
}

// remove removes what is in the workspace and belongs to nothing that runs.
func (c *command) remove(o PruneOptions) error {
	items, err := removable(c.ws, o)
	if err != nil {
		return err
	}
	var used error
	items = slices.DeleteFunc(items, func(item workspace.Item) bool {
		path := filepath.Join(c.ws.Root, item.Path)
		if item.Kind != "overlay" {
			return false
		}
		if inUse, err := qemu.InUse(path); err != nil || !inUse {
			return false // what is no disk is none that is used
		}
		used = errors.Join(used, &OverlayInUseError{path})
		return true
	})
	err = errors.Join(c.ws.Clean(items, func(workspace.Item) {}), used)
	vms, pidErr := c.ws.PidfileVMs()
	err = errors.Join(err, pidErr)
	for _, vm := range vms {
		if _, pidErr := removePidfile(c.ws, vm); pidErr != nil {
			err = errors.Join(err, pidErr)
		}
	}
	return err
}

func removable(ws *workspace.Workspace, o PruneOptions) ([]workspace.Item, error) {
	return ws.Removable(workspace.RemoveOptions{KeepLogs: o.KeepLogs, KeepOverlays: o.KeepOverlays})
}

// OverlayInUseError says: a living QEMU has an overlay open, so that is not removed.
type OverlayInUseError struct{ Path string }

func (e *OverlayInUseError) Error() string {
	return fmt.Sprintf("overlay %s is left: another QEMU has it open", e.Path)
}

// Hint says what to do next.
func (e *OverlayInUseError) Hint() string {
	return "it may be a VM of another workspace, or one that is not on record: find it with fuser or lsof on that file"
}

// prunable lists what prune removes from a workspace. The session may be nil.
// The VMs that run are taken down before, as by Down.
func (p *Project) prunable(ws *workspace.Workspace, session *workspace.Session, o PruneOptions, running []string) ([]PrunedItem, error) {
	items, err := removable(ws, o)
	if err != nil {
		return nil, err
	}
	var all []PrunedItem
	for _, item := range items {
		all = append(all, PrunedItem{ws.ID, filepath.Join(ws.Root, item.Path), item.Kind, item.Bytes})
	}
	add := func(path, kind string) {
		if st, err := os.Lstat(path); err == nil && !covers(all, path) {
			all = append(all, PrunedItem{ws.ID, path, kind, host.DiskUsage(st)})
		}
	}
	vms, err := ws.PidfileVMs()
	for _, vm := range vms {
		if st, err := os.Lstat(ws.Pidfile(vm)); err == nil && st.Mode().IsRegular() && (slices.Contains(running, vm) || pid(ws, vm) == 0) {
			add(ws.Pidfile(vm), "pidfile")
		}
	}
	if session == nil || o.KeepOverlays && len(running) == 0 {
		return all, err
	}
	for _, vm := range session.Names() {
		r := session.VMs[vm]
		path := recordedOverlay(ws, vm, r)
		if there, err := workspace.Identify(path); err == nil && proveOverlay(ws, p.home, path, r, there) == nil {
			add(path, "overlay")
		}
		add(ws.Seed(vm), "overlay")
		add(ws.Vars(vm), "overlay")
	}
	return all, err
}

// covers tells that a path is one of the items, or lies below one.
func covers(items []PrunedItem, path string) bool {
	return slices.ContainsFunc(items, func(i PrunedItem) bool {
		return path == i.Path || strings.HasPrefix(path, i.Path+string(filepath.Separator))
	})
}

// leftovers lists what every command removes before its own work.
func leftovers(ws *workspace.Workspace, home string) ([]PrunedItem, error) {
	staged, err := ws.Staged()
	legacy, legacyErr := ws.Legacy()
	var all []PrunedItem
	for _, item := range slices.Concat(staged, legacy) {
		all = append(all, PrunedItem{ws.ID, filepath.Join(ws.Root, item.Path), item.Kind, item.Bytes})
	}
	stale, indexErr := workspace.Stale(home)
	return append(all, indexItems(stale)...), errors.Join(err, legacyErr, indexErr)
}

// indexItems are files of the index of workspaces, which is of none of them.
func indexItems(files []workspace.Item) (all []PrunedItem) {
	for _, f := range files {
		all = append(all, PrunedItem{Path: f.Path, Kind: f.Kind, Bytes: f.Bytes})
	}
	return all
}

// runningVMs names the VMs that run.
func (p *Project) runningVMs(ctx context.Context) ([]string, error) {
	records, _, err := p.records() // without a session, the pidfiles tell
	var running []string
	for _, vm := range p.known(records) {
		if p.alive(ctx, vm, records[vm]) {
			running = append(running, vm)
		}
	}
	return running, err
}

// write prints the report for people.
func (r *PruneReport) write(w io.Writer) error {
	verb := "removed"
	if r.DryRun {
		verb = "would remove"
	}
	for _, item := range r.Items {
		fmt.Fprintf(w, "%s %-9s %9s  %s\n", verb, item.Kind, report.Bytes(item.Bytes), report.Sanitize(shortHome(item.Path)))
	}
	for _, vm := range r.Running {
		fmt.Fprintf(w, "running: %s\n", vm)
	}
	_, err := fmt.Fprintf(w, "%s %s, %s\n", verb, count(len(r.Items), "item"), report.Bytes(r.Bytes))
	return err
}
