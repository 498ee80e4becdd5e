package castra

import (
	"context"
	"errors"
	"io"
	"time"

	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

// connectLimit bounds the login of a verb that talks to a running guest.
const connectLimit = 30 * time.Second

// Command is a shell command for a guest. Nil streams are empty input and
// dropped output.
type Command struct {
	Line           string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exec runs a command in a VM, named by its name or the role of a lone
// replica. The guest's shell reads the line; nothing on the host does. A
// command that fails is an error with the command's exit status, 128 plus the
// number of the signal that ended it.
func (p *Project) Exec(ctx context.Context, vm string, cmd Command) error {
	client, name, err := p.dial(ctx, "exec", vm)
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.Run(ctx, guest.Command(cmd))
	if exited := new(guest.ExitError); err == nil || errors.As(err, &exited) {
		return err
	}
	return &VMError{Op: "exec", VM: name, Err: err}
}

// dial logs in to a VM that runs, for a verb.
func (p *Project) dial(ctx context.Context, verb, vm string) (*guest.Client, string, error) {
	records, fault, err := p.records()
	if err := errors.Join(fault, err); err != nil {
		return nil, "", err
	}
	name, err := resolve(vm, p.roles(records), p.known(records))
	if err != nil {
		return nil, "", err
	}
	r := records[name]
	if !p.alive(ctx, name, r) || r.SSH.Port == 0 {
		return nil, name, &NotRunningError{name}
	}
	to, err := login(r)
	if err != nil {
		return nil, name, &VMError{Op: verb, VM: name, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	client, err := guest.Dial(ctx, to)
	if err != nil {
		return nil, name, &VMError{Op: verb, VM: name, Phase: "connect", Err: err, Next: "mage status tells how the VM does"}
	}
	return client, name, nil
}

// alive tells that a VM runs, or is about to.
func (p *Project) alive(ctx context.Context, vm string, r workspace.VM) bool {
	s := qemu.Inspect(ctx, target(p.layout(), vm, r))
	return s.Alive() || s.Launching
}

// roles is the role of every VM that is known.
func (p *Project) roles(records map[string]workspace.VM) map[string]string {
	roles := map[string]string{}
	for vm, r := range records {
		roles[vm] = r.Role
	}
	if p.config != nil {
		for _, vm := range p.config.VMs {
			roles[vm.Name] = vm.Role
		}
	}
	return roles
}
