package castra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

// ProjectStatus is what can be seen of a project's VMs. Its JSON form is that of
// `mage status -json`.
type ProjectStatus struct {
	Workspace string     `json:"workspace"`
	Root      string     `json:"root"`
	Project   string     `json:"project,omitempty"`
	Config    string     `json:"config,omitempty"`
	Problem   string     `json:"problem,omitempty"` // with castra.toml or the workspace's record
	VMs       []VMStatus `json:"vms"`
}

// VMStatus is one VM. State is one of:
//
//	stopped         it does not run
//	crashed         it ran, nobody took it down, and it is gone
//	booting         it runs and has not let us in yet
//	running         it runs and has let us in
//	paused, io-error, …   QEMU runs and its guest does not, in QEMU's own word
//	not responding  the process lives and does not answer on its monitor
type VMStatus struct {
	Name        string    `json:"name"`
	Role        string    `json:"role"`
	State       string    `json:"state"`
	PID         int       `json:"pid,omitempty"`
	Launched    time.Time `json:"launched,omitzero"`
	UptimeSecs  int64     `json:"uptime_secs,omitempty"`
	Accelerator string    `json:"accelerator,omitempty"`
	SSH         string    `json:"ssh,omitempty"` // user@host:port
	Forwards    []Forward `json:"forwards"`
	Bootstrap   string    `json:"bootstrap,omitempty"` // applied, noop, failed; empty when none ran
	// Start of a VM that runs is "cold", "disk" or "ram", and StartReason why it was
	// that; Template names what it was started from.
	Start       string `json:"start,omitempty"`
	StartReason string `json:"start_reason,omitempty"`
	Template    string `json:"template,omitempty"`
	// Health of a VM that runs: "ok", "booting", "bootstrap failed", or what
	// its State says where that is trouble.
	Health  string `json:"health,omitempty"`
	Problem string `json:"problem,omitempty"`
	// Posture is that of a VM that runs.
	Posture *Posture `json:"posture,omitempty"`
}

// Forward is one rule that leads from a port of the host to one of the guest.
type Forward struct {
	HostIP    string `json:"host_ip"`
	HostPort  int    `json:"host_port"`
	GuestPort int    `json:"guest_port"`
	Protocol  string `json:"protocol"`
}

func (f Forward) String() string {
	return fmt.Sprintf("%s:%d->%d/%s", f.HostIP, f.HostPort, f.GuestPort, f.Protocol)
}

// Status looks at every VM of castra.toml and every VM on record. It takes no
// lock and writes nothing.
func (p *Project) Status(ctx context.Context) (*ProjectStatus, error) {
	s := &ProjectStatus{Workspace: p.id, Root: p.root, VMs: []VMStatus{}}
	if p.config != nil {
		s.Project, s.Config = p.config.Name, p.config.File
	}
	records, fault, err := p.records()
	if err != nil {
		return nil, err
	}
	seen := p.look(ctx, p.known(records), records)
	for range lookTries {
		now, nowFault, err := p.records()
		if err != nil {
			return nil, err
		}
		changed := slices.DeleteFunc(p.known(now), func(vm string) bool {
			_, looked := seen[vm]
			return looked && reflect.DeepEqual(records[vm], now[vm])
		})
		records, fault = now, nowFault
		if len(changed) == 0 {
			break
		}
		maps.Copy(seen, p.look(ctx, changed, records))
	}
	s.Problem = p.configProblem()
	if fault != nil {
		s.Problem = fault.Error()
	}
	for _, vm := range p.known(records) {
		s.VMs = append(s.VMs, seen[vm])
	}
	return s, nil
}

const (
	// lookTries is how often a VM is looked at again whose record a command
	// has changed meanwhile: one run's record would be told of another's process.
	lookTries = 5
	// answerLimit bounds what a monitor is waited for. It leaves a status of many
	// workspaces, some of them hung, within a second.
	answerLimit = 900 * time.Millisecond
)

// look looks at these VMs, all at once.
func (p *Project) look(ctx context.Context, names []string, records map[string]workspace.VM) map[string]VMStatus {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	all := make([]VMStatus, len(names))
	var wg sync.WaitGroup
	for i, vm := range names {
		wg.Go(func() { all[i] = p.vmStatus(ctx, vm, records[vm]) })
	}
	wg.Wait()
	seen := map[string]VMStatus{}
	for _, vm := range all {
		seen[vm.Name] = vm
	}
	return seen
}

// records are what the workspace tells of its VMs: a record for each that has
// one, and an empty one for each that files alone tell of. Where the session
// cannot be used, its fault is given beside what the pidfiles tell.
func (p *Project) records() (records map[string]workspace.VM, fault, err error) {
	records = map[string]workspace.VM{}
	ws, err := p.workspace()
	if err != nil || ws == nil {
		return records, nil, err
	}
	session, err := ws.LoadSession()
	switch {
	case err == nil:
		records = session.VMs
	case errors.As(err, new(*workspace.RecordError)):
		fault = err
	default:
		return nil, nil, err
	}
	tracked, err := ws.TracedVMs()
	for _, vm := range tracked {
		if _, ok := records[vm]; !ok {
			records[vm] = workspace.VM{}
		}
	}
	return records, fault, err
}

// known names the VMs of castra.toml, then those that the workspace alone
// tells of.
func (p *Project) known(records map[string]workspace.VM) []string {
	var names []string
	if p.config != nil {
		names = vmNames(p.config.VMs)
	}
	for _, vm := range slices.Sorted(maps.Keys(records)) {
		if !slices.Contains(names, vm) {
			names = append(names, vm)
		}
	}
	return names
}

func (p *Project) vmStatus(ctx context.Context, vm string, r workspace.VM) VMStatus {
	s := VMStatus{Name: vm, Role: r.Role, State: "stopped", Forwards: []Forward{}, Bootstrap: r.Bootstrap.Outcome}
	configured := p.config == nil
	if p.config != nil {
		for _, c := range p.config.VMs {
			if c.Name == vm {
				s.Role, configured = c.Role, true
			}
		}
	}
	state := qemu.Inspect(ctx, target(p.layout(), vm, r))
	if state.Launching {
		s.State, s.Health = "booting", "booting"
		return s
	}
	if !state.Alive() {
		if r.PID != 0 && r.BootID == host.BootID() && !r.Ending {
			s.State, s.Problem = "crashed", "QEMU ended by itself; its log is "+p.layout().QEMULog(vm)
		}
		if state.Err != nil {
			s.Problem = state.Err.Error()
		}
		return s
	}
	s.PID, s.Accelerator, s.Launched = state.PID, r.Accelerator, r.Launched
	s.Start, s.StartReason, s.Template = r.Start.Kind, r.Start.Reason, r.Start.Template
	if !r.Launched.IsZero() {
		s.UptimeSecs = int64(time.Since(r.Launched).Seconds())
	}
	if r.SSH.Port != 0 {
		s.SSH = fmt.Sprintf("%s@%s:%d", r.SSH.User, r.SSH.Host, r.SSH.Port)
	}
	for _, f := range r.Forwards {
		s.Forwards = append(s.Forwards, Forward(f))
	}
	s.State = stateWord(state, r)
	s.Problem = problem(state, r, configured)
	s.Health = health(s)
	s.Posture = p.posture(state.PID, r)
	return s
}

func health(s VMStatus) string {
	switch {
	case s.State != "running":
		return s.State
	case s.Bootstrap == "failed":
		return "bootstrap failed"
	default:
		return "ok"
	}
}

func stateWord(state qemu.State, r workspace.VM) string {
	switch {
	case state.Status == "":
		return "not responding"
	case state.Status != "running":
		return state.Status
	case r.Name != "" && r.Ready.IsZero():
		return "booting"
	default:
		return "running"
	}
}

func problem(state qemu.State, r workspace.VM, configured bool) string {
	switch {
	case state.Err != nil:
		return state.Err.Error()
	case !state.Tracked:
		return "its pidfile is gone; mage down finds it by its monitor"
	case r.Name == "":
		return "it runs without a record; mage down ends it"
	case !configured:
		return "castra.toml does not name it any more; mage down ends it"
	case state.Status == "io-error":
		return "the guest is paused since its disk could not be written: make room, then mage down"
	case r.Bootstrap.Outcome == "failed":
		return strings.TrimSpace("bootstrap failed: " + r.Bootstrap.Error)
	default:
		return ""
	}
}
