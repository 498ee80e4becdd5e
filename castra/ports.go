package castra

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/report"
)

// ProjectPorts is every forward of a project: those declared and those in force. Its
// JSON form is that of `mage ports -json`.
type ProjectPorts struct {
	Workspace string `json:"workspace"`
	Root      string `json:"root"`
	Problem   string `json:"problem,omitempty"`
	Ports     []Port `json:"ports"`
}

// Port is one forward. HostPort is 0 while the kernel has yet to choose it.
type Port struct {
	VM string `json:"vm"`
	Forward
	Active bool `json:"active"`
	// Conflict names who holds the host port of a forward that is not
	// active; empty when it is free.
	Conflict string `json:"conflict,omitempty"`
	// Warning tells of another process that programs may reach in the
	// guest's place, or of other computers that reach the guest.
	Warning string `json:"warning,omitempty"`
	// Declared is where castra.toml declares it, "on record" where that is not
	// at hand; empty for the forward to SSH that Castra adds.
	Declared string `json:"declared,omitempty"`
}

func (p Port) String() string { return p.VM + " " + p.Forward.String() }

// Ports looks at every forward. It takes no lock and writes nothing.
func (p *Project) Ports(ctx context.Context) (*ProjectPorts, error) {
	status, err := p.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := &ProjectPorts{Workspace: status.Workspace, Root: status.Root, Problem: status.Problem, Ports: []Port{}}
	holder := p.holders()
	for _, vm := range status.VMs {
		declared := p.declared(vm.Name)
		if vm.PID == 0 {
			for _, port := range declared {
				if port.HostPort != 0 && host.Bindable(ctx, port.Protocol, port.HostIP, port.HostPort) != nil {
					port.Conflict = owner(holder, port.Protocol, port.HostIP, port.HostPort)
				}
				if port.Conflict == heldBy(port.VM, out.Workspace) {
					port.Conflict = "" // it has been started since we looked
				}
				port.Warning = exposure(port.Forward)
				out.Ports = append(out.Ports, port)
			}
			continue
		}
		for _, f := range vm.Forwards {
			out.Ports = append(out.Ports, Port{VM: vm.Name, Forward: f, Active: true, Warning: exposure(f), Declared: declaredAt(declared, f)})
		}
	}
	return out, nil
}

// declared are the forwards that castra.toml gives a VM.
func (p *Project) declared(vm string) []Port {
	var ports []Port
	if p.config == nil {
		return nil
	}
	for _, c := range p.config.VMs {
		if c.Name != vm {
			continue
		}
		for _, f := range c.Forwards {
			port := Port{VM: vm, Forward: Forward{f.HostIP, f.HostPort, f.GuestPort, f.Protocol}}
			switch {
			case p.fault != nil: // the lines of a snapshot are nobody's
				port.Declared = "on record"
			case f.Line > 0:
				port.Declared = fmt.Sprintf("%s:%d", filepath.Base(p.config.File), f.Line)
			}
			ports = append(ports, port)
		}
	}
	return ports
}

// declaredAt finds the declaration of a forward that is in force.
func declaredAt(declared []Port, f Forward) string {
	for _, d := range declared {
		if d.GuestPort == f.GuestPort && d.Protocol == f.Protocol && (d.HostPort == f.HostPort || d.HostPort == 0) {
			return d.Declared
		}
	}
	return ""
}

// exposure tells who else is at the port than the two that should be.
func exposure(f Forward) string {
	switch {
	case !net.ParseIP(f.HostIP).IsLoopback():
		return "other computers can reach it"
	case f.Protocol == "tcp" && f.HostPort != 0 && host.ListensIPv6(f.HostPort):
		return "another process listens on the same port of ::1: say 127.0.0.1, not localhost"
	default:
		return ""
	}
}

// owner names who holds a port, by its workspace where that is Castra's.
func owner(holder func(by host.Owner, protocol string, port int) string, protocol, ip string, port int) string {
	by := host.PortOwner(protocol, ip, port)
	if vm := holder(by, protocol, port); vm != "" {
		return vm
	}
	return orUnknown(by.String())
}

func orUnknown(owner string) string {
	if owner == "" {
		return "another process"
	}
	return owner
}

// PortsView says what of the ports is printed. The zero value is all of them,
// without where they come from.
type PortsView struct {
	Active  bool // only forwards in force
	Verbose bool // with the declaration and warnings of each
}

// rows is the table that `mage ports` prints.
func (p *ProjectPorts) rows(v PortsView) (header []string, rows [][]string) {
	header = []string{"vm", "host", "guest", "state"}
	if v.Verbose {
		header = append(header, "declared", "note")
	}
	for _, port := range p.Ports {
		if v.Active && !port.Active {
			continue
		}
		hostPort := fmt.Sprintf("%s:%d", port.HostIP, port.HostPort)
		if port.HostPort == 0 {
			hostPort = port.HostIP + ":(at launch)"
		}
		state := "declared"
		switch {
		case port.Active:
			state = "active"
		case port.Conflict != "":
			state = "taken by " + port.Conflict
		}
		row := []string{port.VM, hostPort, fmt.Sprintf("%d/%s", port.GuestPort, port.Protocol), state}
		if v.Verbose {
			declared := port.Declared
			if declared == "" {
				declared = "(by Castra)"
			}
			row = append(row, declared, port.Warning)
		}
		rows = append(rows, row)
	}
	return header, rows
}

// write prints the ports for people.
func (p *ProjectPorts) write(w io.Writer, v PortsView) error {
	if p.Problem != "" {
		fmt.Fprintln(w, report.Sanitize(p.Problem))
	}
	header, rows := p.rows(v)
	return report.Table(w, header, rows)
}

// PortsReport is the forwards of several workspaces. Its JSON form is that of
// `mage ports -json`: the ProjectPorts itself where one project was asked for.
type PortsReport struct {
	Workspaces []*ProjectPorts   `json:"workspaces"`
	Broken     []BrokenWorkspace `json:"broken"`
	one        bool
}

// MarshalJSON gives one project without the list around it.
func (r *PortsReport) MarshalJSON() ([]byte, error) {
	if r.one {
		return json.Marshal(r.Workspaces[0])
	}
	type all PortsReport
	return json.Marshal((*all)(r))
}

// write prints the report for people: a header each with the workspace's ID.
func (r *PortsReport) write(w io.Writer, v PortsView) error {
	if r.one {
		return r.Workspaces[0].write(w, v)
	}
	for i, p := range r.Workspaces {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "workspace %s (%s)\n", p.Workspace, shortHome(p.Root))
		if err := p.write(w, v); err != nil {
			return err
		}
	}
	return writeBroken(w, len(r.Workspaces), r.Broken)
}
