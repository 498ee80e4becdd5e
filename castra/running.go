package castra

import (
	"context"
	"strings"

	"github.com/magefile/mage/mg"
)

// Running is a dependency for mg.Deps and mg.CtxDeps: "these VMs, named by
// name or role, are up". Without names it is all VMs of the project. Mage runs
// it once for the same names; VMs that run already cost next to nothing.
//
//	mg.CtxDeps(ctx, castra.Running("web", "db-0"))
func Running(vms ...string) mg.Fn { return running(vms) }

type running []string

func (running) Name() string { return "castra.Running" }

func (r running) ID() string { return strings.Join(r, ",") }

func (r running) Run(ctx context.Context) error {
	p, err := Open(environment())
	if err != nil {
		return exit(err)
	}
	p.Reporter = reporter()
	o := upEnvironment()
	o.VMs = r
	return exit(p.Up(ctx, o))
}
