package castra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"castra.example/castra/castra/internal/logs"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/workspace"
)

// downLimit bounds the taking down after ctx has ended. Mage allows 5 s after
// Ctrl-C.
const downLimit = rollbackLimit

// With brings the project's VMs up, calls f, and takes them down again, also
// when f fails, panics, or ctx ends. The error is that of f, joined with what
// went wrong in taking down.
func With(ctx context.Context, o Options, f func(ctx context.Context, s *Session) error) error {
	p, err := Open(o)
	if err != nil {
		return err
	}
	return p.With(ctx, UpOptions{}, f)
}

// With is the same for a project that is open. All its VMs are taken down, also
// those that were up before.
func (p *Project) With(ctx context.Context, o UpOptions, f func(ctx context.Context, s *Session) error) (err error) {
	defer func() { err = errors.Join(err, p.downAlways(ctx)) }()
	if err := p.Up(ctx, o); err != nil {
		return err
	}
	s, err := p.Session(ctx)
	if err != nil {
		return err
	}
	return f(ctx, s)
}

// downAlways is Down also after ctx has ended, and is quick then.
func (p *Project) downAlways(ctx context.Context) error {
	if ctx.Err() == nil {
		return p.Down(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
	defer cancel()
	return p.Down(ctx)
}

// Session is how to use VMs that run. It holds no connection and needs no
// closing.
type Session struct {
	p   *Project
	vms map[string]workspace.VM
}

// Session gives the VMs that are up. A VM that is launched or taken down later
// does not change it.
func (p *Project) Session(ctx context.Context) (*Session, error) {
	records, fault, err := p.records()
	if err := errors.Join(fault, err); err != nil {
		return nil, err
	}
	s := &Session{p: p, vms: map[string]workspace.VM{}}
	for vm, r := range records {
		if p.alive(ctx, vm, r) && r.SSH.Port != 0 {
			s.vms[vm] = r
		}
	}
	return s, nil
}

// VMs names the VMs of the session, sorted.
func (s *Session) VMs() []string {
	var names []string
	for name := range s.vms {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// find takes a name, or the role of a lone replica.
func (s *Session) find(vm string) (workspace.VM, error) {
	roles := map[string]string{}
	for name, r := range s.vms {
		roles[name] = r.Role
	}
	name, err := resolve(vm, roles, s.VMs())
	return s.vms[name], err
}

// Address is where the guest's TCP port is reached from this computer:
// "127.0.0.1:40123". A port that no forward leads to is a *NoForwardError.
func (s *Session) Address(vm string, guestPort int) (string, error) {
	r, err := s.find(vm)
	if err != nil {
		return "", err
	}
	for _, f := range r.Forwards {
		if f.GuestPort == guestPort && f.Protocol == "tcp" {
			return reach(f), nil
		}
	}
	return "", &NoForwardError{r.Name, guestPort}
}

// reach is the address to dial for a forward: one that listens everywhere is
// reached by loopback.
func reach(f workspace.Forward) string {
	ip := f.HostIP
	if parsed := net.ParseIP(ip); parsed == nil || parsed.IsUnspecified() {
		ip = loopback
	}
	return net.JoinHostPort(ip, strconv.Itoa(f.HostPort))
}

// NoForwardError says: no forward leads to that port of the guest.
type NoForwardError struct {
	VM   string
	Port int // of the guest
}

func (e *NoForwardError) Error() string {
	return fmt.Sprintf("VM %s: no forward leads to port %d of the guest", e.VM, e.Port)
}

// Hint says what to do next.
func (e *NoForwardError) Hint() string {
	return fmt.Sprintf("add port_forwards = [{ guest = %d }] to its [[vms]], then mage down and mage up", e.Port)
}

// Exec is Project.Exec.
func (s *Session) Exec(ctx context.Context, vm string, cmd Command) error {
	return s.p.Exec(ctx, vm, cmd)
}

// Output runs a shell command in a guest and gives what it printed on stdout,
// without the last line end. Of a command that fails, the error has what it
// printed on stderr.
func (s *Session) Output(ctx context.Context, vm, line string) (string, error) {
	var out, fault bytes.Buffer
	err := s.p.Exec(ctx, vm, Command{Line: line, Stdout: &out, Stderr: &fault})
	if err != nil && fault.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, report.Sanitize(strings.TrimSpace(fault.String())))
	}
	return strings.TrimSuffix(out.String(), "\n"), err
}

// Copy is Project.Copy.
func (s *Session) Copy(ctx context.Context, src, dst string) error { return s.p.Copy(ctx, src, dst) }

// Environment gives the addresses of the VMs for a program of the host, as
// "NAME=value", sorted. For VM web-0, with CASTRA_WEB_0_ in front of each:
//
//	HOST, USER, IDENTITY   how to log in by SSH
//	PORT                   the port of HOST that leads to SSH
//	ADDR_80                where TCP port 80 of the guest is reached: host:port
//	ADDR_53_UDP            the same for UDP
//
// A lone replica has them under its role too (CASTRA_WEB_ADDR_80). CASTRA_VMS
// names the VMs, and CASTRA_STATE_ROOT is the workspace.
func (s *Session) Environment() []string {
	env := []string{"CASTRA_VMS=" + strings.Join(s.VMs(), " "), "CASTRA_STATE_ROOT=" + s.p.root}
	replicas := map[string]int{}
	for _, r := range s.vms {
		replicas[r.Role]++
	}
	for name, r := range s.vms {
		env = append(env, variables(name, r)...)
		if r.Role != name && r.Role != "" && replicas[r.Role] == 1 {
			env = append(env, variables(r.Role, r)...)
		}
	}
	slices.Sort(env)
	return env
}

func variables(name string, r workspace.VM) []string {
	prefix := "CASTRA_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_"
	env := []string{
		prefix + "HOST=" + r.SSH.Host, prefix + "PORT=" + strconv.Itoa(r.SSH.Port),
		prefix + "USER=" + r.SSH.User, prefix + "IDENTITY=" + r.SSH.Identity,
	}
	for _, f := range r.Forwards {
		suffix := ""
		if f.Protocol != "tcp" {
			suffix = "_" + strings.ToUpper(f.Protocol)
		}
		env = append(env, fmt.Sprintf("%sADDR_%d%s=%s", prefix, f.GuestPort, suffix, reach(f)))
	}
	return env
}

// SerialTail gives the last lines that a guest printed on its serial port, as it
// wrote them.
func (s *Session) SerialTail(vm string) ([]string, error) {
	r, err := s.find(vm)
	if err != nil {
		return nil, err
	}
	return logs.Tail(s.p.layout().SerialLog(r.Name), tailLines)
}
