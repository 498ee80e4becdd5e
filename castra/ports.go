package castra

import (
	"context"
	"fmt"
	"io"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/report"
)

// ProjectPorts is every forward of a project: those declared and those in force. Its
// JSON form is that of `mage ports -json`.
type ProjectPorts struct {
	Workspace string `json:"workspace"`
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
}

func (p Port) String() string { return p.VM + " " + p.Forward.String() }

// Ports looks at every forward. It takes no lock and writes nothing.
func (p *Project) Ports(ctx context.Context) (*ProjectPorts, error) {
	status, err := p.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := &ProjectPorts{Workspace: status.Workspace, Ports: []Port{}}
	for _, vm := range status.VMs {
		if vm.PID != 0 {
			for _, f := range vm.Forwards {
				out.Ports = append(out.Ports, Port{VM: vm.Name, Forward: f, Active: true})
			}
			continue
		}
		out.Ports = append(out.Ports, p.declared(ctx, vm.Name)...)
	}
	return out, nil
}

// declared are the forwards that castra.toml gives a VM that does not run.
func (p *Project) declared(ctx context.Context, vm string) []Port {
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
			if f.HostPort != 0 && bindable(ctx, f.Protocol, f.HostIP, f.HostPort) != nil {
				port.Conflict = orUnknown(host.PortOwner(f.Protocol, f.HostPort))
			}
			ports = append(ports, port)
		}
	}
	return ports
}

func orUnknown(owner string) string {
	if owner == "" {
		return "another process"
	}
	return owner
}

// rows is the table that `mage ports` prints.
func (p *ProjectPorts) rows(activeOnly bool) (header []string, rows [][]string) {
	header = []string{"vm", "host", "guest", "state"}
	for _, port := range p.Ports {
		if activeOnly && !port.Active {
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
		rows = append(rows, []string{port.VM, hostPort, fmt.Sprintf("%d/%s", port.GuestPort, port.Protocol), state})
	}
	return header, rows
}

// write prints the ports for people.
func (p *ProjectPorts) write(w io.Writer, activeOnly bool) error {
	header, rows := p.rows(activeOnly)
	return report.Table(w, header, rows)
}
