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
func Running(vms ...string) mg.Fn { return UpWith(UpOptions{VMs: vms}) }

// UpWith is Up with options, as a dependency for mg.Deps and mg.CtxDeps. What
// the options leave open is taken from the environment, as the target does.
//
//	mg.CtxDeps(ctx, castra.UpWith(castra.UpOptions{Bootstrap: "web=always"}))
func UpWith(o UpOptions) mg.Fn { return upWith(o) }

type upWith UpOptions

func (upWith) Name() string { return "castra.UpWith" }

// ID tells dependencies apart that mage must not take for one.
func (u upWith) ID() string { return strings.Join(u.VMs, ",") + ";" + u.Bootstrap }

func (u upWith) Run(ctx context.Context) error {
	p, err := Open(Environment())
	if err != nil {
		return exit(err)
	}
	p.Reporter = reporter()
	o := UpOptions(u)
	if o.Bootstrap == "" {
		o.Bootstrap = upEnvironment().Bootstrap
	}
	return exit(p.Up(ctx, o))
}
