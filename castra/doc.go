// Package castra gives a project disposable QEMU virtual machines as mage
// targets. A project declares its VMs in castra.toml, imports this package
// into its magefile, and gets up, down, status, ports, plan, logs, bus, ssh,
// exec, copy, within, clean, prune, init and doctor next to its own tasks:
//
//	import (
//		//mage:import
//		_ "castra.example/castra/castra"
//	)
//
// Every `mage up` starts each VM from a fresh qcow2 overlay on its base image,
// and `mage down` throws the overlay away; what stays is cache. There is no
// daemon: each command starts from what is on disk and from the locks that
// living QEMU processes hold, and finishes what a killed one left.
//
// The same is there for Go code: Open a Project and call a method a verb, call
// With to have VMs for as long as a function runs, or let a target of your own
// depend on VMs with Running:
//
//	func Integration(ctx context.Context) error {
//		mg.CtxDeps(ctx, castra.Running("web"))
//		return sh.RunV("go", "test", "./e2e/...")
//	}
package castra
