package castra

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

// goarch is the architecture of guests: the host's.
const goarch = runtime.GOARCH

// site is what a plan depends on besides castra.toml.
type site struct {
	layout      workspace.Layout
	id          string
	system      string // QEMU's program
	accelerator qemu.Accelerator
	images      map[string]image.Base // by the VM's name
	goos        string
}

// vmPlan is what `up` does for one VM: the same value that `plan` prints.
type vmPlan struct {
	config.VM
	spec     qemu.Spec
	base     image.Base
	backing  string // what the overlay writes on top of: the base image, or the disk of a template
	memory   string // the memory of a template that goes into one that can be saved again; "" where it is mapped
	copied   string // the disk of a template that the overlay begins as a copy of; "" otherwise
	identity string // private key that the guest lets in
	start    workspace.Start
	restored string // digest of the bootstrap that the template has run; "" where it has not
	saved    bool   // it will be made a template when it is ready, after its bootstrap, or both
	// settings are what a VM that runs is compared by.
	settings map[string]string
}

// planVM is the one translation from castra.toml to QEMU. It is pure.
func planVM(s site, vm config.VM) vmPlan {
	p := vmPlan{VM: vm, base: s.images[vm.Name], identity: vm.SSH.Identity}
	if p.SSH.User == "" {
		p.SSH.User = p.base.User
	}
	if p.SSH.User == "" {
		p.SSH.User = "root"
	}
	if p.identity == "" {
		p.identity = s.layout.Identity()
	}
	if vm.Kernel != "" {
		p.base.Kernel, p.base.Initrd, p.base.Append = vm.Kernel, vm.Initrd, vm.Append
	}
	p.backing = p.base.Path
	p.spec = qemu.Spec{
		Binary: s.system, Dir: s.layout.Root, Name: vm.Name, UUID: uuid(s.layout.Root, vm.Name),
		Machine: qemu.Machine(goarch), Accelerator: s.accelerator, CPUs: vm.CPUs, MemoryMiB: vm.MemoryMiB,
		Overlay: overlayPath(s, vm), Seed: s.layout.Seed(vm.Name), Forwards: forwards(vm),
		Pidfile: s.layout.Pidfile(vm.Name), Monitor: s.layout.MonitorName(vm.Name), SerialLog: s.layout.SerialLog(vm.Name),
		Kernel: p.base.Kernel, Initrd: p.base.Initrd, Append: p.base.Append,
		Sandbox: s.goos == "linux", Restrict: vm.Network == "isolated", CPU: vm.CPU,
		// The small guest's kernel has no driver for it, and would spend 20 ms of a restore on being told.
		GenerationID: goarch == "amd64" && vm.Image != image.Small,
	}
	if vm.Machine != "" {
		p.spec.Machine = vm.Machine
	}
	p.settings = settings(p)
	return p
}

// overlayPath rebases a leading .castra/ into the workspace.
func overlayPath(s site, vm config.VM) string {
	const workspacePrefix = ".castra/"
	switch rest, inside := strings.CutPrefix(filepath.ToSlash(vm.Overlay), workspacePrefix); {
	case vm.Overlay == "":
		return s.layout.Overlay(s.id, vm.Name)
	case inside:
		return filepath.Join(s.layout.Root, filepath.FromSlash(rest))
	default:
		return vm.Overlay
	}
}

func forwards(vm config.VM) []qemu.Forward {
	var fs []qemu.Forward
	for _, f := range vm.Forwards {
		fs = append(fs, qemu.Forward{HostIP: f.HostIP, HostPort: f.HostPort, GuestPort: f.GuestPort, Protocol: f.Protocol})
	}
	return fs
}

func settings(p vmPlan) map[string]string {
	m := map[string]string{
		"cpus":       strconv.Itoa(p.CPUs),
		"memory":     fmt.Sprintf("%d MiB", p.MemoryMiB),
		"base_image": p.base.Path,
		"overlay":    p.spec.Overlay,
		"kernel":     p.spec.Kernel,
		"initrd":     p.spec.Initrd,
		"append":     p.spec.Append,
		"ssh.user":   p.SSH.User,
		"ssh.port":   strconv.Itoa(p.SSH.Port),
		"ssh.host":   p.SSH.Host,
		"identity":   p.identity,
		"network":    p.Network,
		"machine":    p.spec.Machine,
		"cpu":        p.spec.CPU,
	}
	var rules []string
	for _, f := range p.spec.Forwards {
		rules = append(rules, f.String())
	}
	m["port_forwards"] = strings.Join(rules, ", ")
	return m
}

// uuid tells this VM of this workspace from all others, at every launch the
// same, so that a plan is what up runs.
func uuid(root, vm string) string {
	sum := sha256.Sum256([]byte("castra vm\x00" + root + "\x00" + vm))
	b := sum[:16]
	b[6] = b[6]&0x0f | 0x80 // version 8: custom (RFC 9562)
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// site asks this computer for what a plan needs, on behalf of a verb. Images that have yet to be
// made are left to make, which may be nil.
func (p *Project) site(ctx context.Context, verb string, vms []config.VM, make imageMaker) (site, error) {
	s := site{layout: p.layout(), id: p.id, goos: runtime.GOOS, images: map[string]image.Base{}}
	var err error
	if s.system, err = qemu.FindSystem(goarch); err != nil {
		return s, err
	}
	if s.accelerator, err = qemu.ChooseAccelerator(p.options.Accelerator, runtime.GOOS, qemu.KVMDevice); err != nil {
		return s, err
	}
	for _, vm := range vms {
		if s.images[vm.Name], err = p.baseImage(ctx, vm, make); err != nil {
			return s, &VMError{Op: verb, VM: vm.Name, Err: err}
		}
	}
	return s, nil
}
