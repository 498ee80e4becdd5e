package castra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

// Selection says which workspaces a verb is about. The zero value is the
// project of the castra.toml in reach or, where there is none, every workspace
// that runs something or has something left to be taken down.
type Selection struct {
	// Workspace is an ID, the beginning of one, or the path of a state root.
	Workspace string
	// All is every workspace there is, also beside a castra.toml.
	All bool
}

// Workspaces are what a Selection found.
type Workspaces struct {
	Projects []*Project
	// Broken are directories among the workspaces that cannot be used as one.
	Broken []BrokenWorkspace
	// One tells that a single project was asked for or is in reach.
	One     bool
	home    string
	missing error // that there is no castra.toml in reach
}

// BrokenWorkspace is a directory that should be a workspace and cannot be used
// as one.
type BrokenWorkspace struct {
	Root    string `json:"root"`
	Problem string `json:"problem"`
}

// OpenWorkspaces opens the workspaces that s selects, for looking at and ending
// what runs there: none needs its castra.toml. It changes nothing on disk. A
// fault of the castra.toml in reach goes to r as a warning; r may be nil.
func OpenWorkspaces(o Options, s Selection, r event.Reporter) (*Workspaces, error) {
	home, err := homeOf(o)
	if err != nil {
		return nil, err
	}
	if s.Workspace != "" {
		if s.All {
			return nil, &usageError{"one workspace and all of them are asked for", "leave out one of the two flags"}
		}
		ws, err := workspace.Find(home, s.Workspace)
		if err != nil {
			return nil, err
		}
		return &Workspaces{Projects: []*Project{fromRegistry(o, home, ws, r)}, One: true, home: home}, nil
	}
	missing := error(&usageError{"there is no workspace", "mage up makes one"})
	if !s.All {
		p, fault, err := OpenRecorded(o)
		if err == nil {
			p.Reporter = r
			p.warnRecorded(fault)
			return &Workspaces{Projects: []*Project{p}, One: true, home: home}, nil
		}
		if !as[*config.NotFoundError](err) || o.Config != "" {
			return nil, err
		}
		missing = err
	}
	all, err := everyWorkspace(o, home, s.All, r)
	if err == nil {
		all.missing = missing
	}
	return all, err
}

// everyWorkspace is those that are active or, with idle, all.
func everyWorkspace(o Options, home string, idle bool, r event.Reporter) (*Workspaces, error) {
	if home == "" {
		return nil, errNoHome
	}
	entries, err := workspace.All(home)
	if err != nil {
		return nil, err
	}
	all := &Workspaces{home: home}
	for _, e := range entries {
		ws, err := workspace.Open(e.Root)
		if err != nil {
			if e.Fault == nil {
				e.Fault = err
			}
			all.Broken = append(all.Broken, BrokenWorkspace{e.Root, e.Fault.Error()})
			continue
		}
		if idle || active(ws) {
			all.Projects = append(all.Projects, fromRegistry(o, home, ws, r))
		}
	}
	return all, nil
}

// underHome leaves out the workspaces that lie elsewhere by a state_dir.
func (w *Workspaces) underHome() {
	w.Projects = slices.DeleteFunc(w.Projects, func(p *Project) bool {
		return filepath.Dir(p.root) != filepath.Dir(workspace.DefaultRoot(w.home, p.id))
	})
}

// is tells that a user who names a workspace means that of p.
func (p *Project) is(key string) bool {
	ws, err := workspace.Find(p.home, key)
	if err != nil {
		return key == p.id || key == p.root
	}
	return ws.Root == p.root
}

// active tells that a workspace runs VMs, or has something of them left.
func active(ws *workspace.Workspace) bool {
	vms, err := ws.TracedVMs()
	if err != nil || len(vms) > 0 {
		return true
	}
	session, err := ws.LoadSession()
	return err != nil || len(session.VMs) > 0
}

// fromRegistry is the project of a workspace that was found without its
// castra.toml.
func fromRegistry(o Options, home string, ws *workspace.Workspace, r event.Reporter) *Project {
	p := recorded(o, home, ws, &RecordedError{Workspace: ws.ID})
	p.Reporter = r
	return p
}

// RecordedError says: a verb needs castra.toml, and the project was opened from
// its workspace.
type RecordedError struct{ Workspace string }

func (e *RecordedError) Error() string {
	return fmt.Sprintf("workspace %s: opened from what is on record, without its castra.toml", e.Workspace)
}

// Hint says what to do next.
func (e *RecordedError) Hint() string { return "run the command where castra.toml is" }

// warnRecorded tells that the project was opened from its record.
func (p *Project) warnRecorded(fault error) {
	if fault == nil {
		return
	}
	p.say(event.Message{Level: "warning", Text: fault.Error(), Hint: "going on with what was recorded when the VMs were started"})
}

// configProblem tells why the castra.toml that the workspace was made for no
// longer speaks for it.
func (p *Project) configProblem() string {
	switch {
	case p.fault == nil:
		return ""
	case !as[*RecordedError](p.fault):
		return firstLine(p.fault.Error())
	case p.config == nil:
		return "castra.toml is not known: " + (workspace.Layout{Root: p.root}).Record() + " cannot be read"
	}
	if _, err := os.Stat(p.config.File); errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("config missing: there is no %s any more; CASTRA_WORKSPACE=%s mage down takes it down", p.config.File, p.id)
	}
	return ""
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}

// Single gives the one project there is; of several, or none, it says how to
// choose one.
func (w *Workspaces) Single() (*Project, error) {
	switch len(w.Projects) {
	case 1:
		return w.Projects[0], nil
	case 0:
		return nil, w.missing
	}
	return nil, &usageError{fmt.Sprintf("there is no castra.toml in reach, and several workspaces are active: %s",
		strings.Join(w.ids(), ", ")), "set CASTRA_WORKSPACE to one of them"}
}

func (w *Workspaces) ids() []string {
	var ids []string
	for _, p := range w.Projects {
		ids = append(ids, p.id)
	}
	return ids
}

// Down takes the workspaces down, one after the other. A fault in one does not
// keep the others up; all are joined.
func (w *Workspaces) Down(ctx context.Context, r event.Reporter) error {
	if len(w.Projects) == 0 {
		say(r, "", event.Summary{Command: "down", Text: "nothing runs"})
		return nil
	}
	var faults []error
	for _, p := range w.Projects {
		if !w.One {
			p.say(event.Message{Level: "info", Text: "workspace " + p.id})
		}
		if err := p.Down(ctx); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// Status is the status of each workspace. One that cannot be looked at is
// named with its problem, and is no error.
func (w *Workspaces) Status(ctx context.Context) (*StatusReport, error) {
	out := &StatusReport{one: w.One, Workspaces: make([]*ProjectStatus, len(w.Projects)), Broken: w.Broken}
	err := w.each(func(i int, p *Project) (err error) {
		out.Workspaces[i], err = p.Status(ctx)
		if err != nil && !w.One {
			out.Workspaces[i] = &ProjectStatus{Workspace: p.id, Root: p.root, Problem: err.Error(), VMs: []VMStatus{}}
			err = nil
		}
		return err
	})
	return out, err
}

// Ports are the forwards of each workspace.
func (w *Workspaces) Ports(ctx context.Context) (*PortsReport, error) {
	out := &PortsReport{one: w.One, Workspaces: make([]*ProjectPorts, len(w.Projects)), Broken: w.Broken}
	err := w.each(func(i int, p *Project) (err error) {
		out.Workspaces[i], err = p.Ports(ctx)
		if err != nil && !w.One {
			out.Workspaces[i] = &ProjectPorts{Workspace: p.id, Root: p.root, Problem: err.Error(), Ports: []Port{}}
			err = nil
		}
		return err
	})
	return out, err
}

// each calls f for all projects at once: a monitor that does not answer in one
// must not hold up the others.
func (w *Workspaces) each(f func(i int, p *Project) error) error {
	faults := make([]error, len(w.Projects))
	var wg sync.WaitGroup
	for i, p := range w.Projects {
		wg.Go(func() { faults[i] = f(i, p) })
	}
	wg.Wait()
	return errors.Join(faults...)
}

// holderVM is how the name of a VM that holds a port begins.
const holderVM = "VM "

// heldBy names a VM as the holder of a port.
func heldBy(vm, workspaceID string) string {
	return fmt.Sprintf(holderVM+"%s of workspace %s", vm, workspaceID)
}

// holders tells which VM of Castra a process is that has a port: "VM web-0 of
// workspace shop-1234". Where the process is not known, it is the one that was
// started with the port.
func (p *Project) holders() func(by host.Owner, protocol string, port int) string {
	entries, err := workspace.All(p.home)
	if p.home == "" || err != nil {
		return func(host.Owner, string, int) string { return "" }
	}
	return func(by host.Owner, protocol string, port int) string {
		for _, e := range entries {
			ws, err := workspace.Open(e.Root)
			if err != nil {
				continue
			}
			vms, _ := ws.PidfileVMs()
			if by.PID == 0 {
				vms = startedWith(ws, protocol, port)
			}
			for _, vm := range vms {
				if running := pid(ws, vm); running != 0 && (by.PID == 0 || running == by.PID) {
					return heldBy(vm, ws.ID)
				}
			}
		}
		return ""
	}
}

// startedWith are the VMs on record with a forward from the port.
func startedWith(ws *workspace.Workspace, protocol string, port int) (vms []string) {
	session, err := ws.LoadSession()
	if err != nil {
		return nil
	}
	for _, name := range session.Names() {
		if slices.ContainsFunc(session.VMs[name].Forwards, func(f workspace.Forward) bool { return f.Protocol == protocol && f.HostPort == port }) {
			vms = append(vms, name)
		}
	}
	return vms
}

// pid is the process of a VM that runs; 0 of one that does not.
func pid(ws *workspace.Workspace, vm string) int {
	holder, _ := qemu.Holder(ws.Pidfile(vm))
	return holder
}
