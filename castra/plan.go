package castra

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

// goarch is the architecture of this computer, and of guests that name none.
const goarch = runtime.GOARCH

// archOf is the architecture of a guest.
func archOf(vm config.VM) string { return cmp.Or(vm.Arch, goarch) }

// site is what a plan depends on besides castra.toml.
type site struct {
	layout    workspace.Layout
	id        string
	platforms map[string]platform // by architecture
	images    map[string]vmImage  // by the VM's name
	goos      string
}

// platform is what runs guests of one architecture here.
type platform struct {
	system      string // QEMU's program
	accelerator qemu.Accelerator
	uefi        qemu.UEFI // with the template of its variables; zero where no VM needs it
}

// vmImage is what one VM boots from.
type vmImage struct {
	image.Base
	size     int64       // of the disk, in bytes; 0 of an image that is not here yet
	stored   *image.Disk // of the image store; nil of other files
	title    string      // what that image is called
	userData []byte      // of the project
}

// vmPlan is what `up` does for one VM: the same value that `plan` prints.
type vmPlan struct {
	config.VM
	spec     qemu.Spec
	arch     string
	firmware string // bios or uefi; "" boots a kernel
	base     image.Base
	size     int64        // of the disk that the guest sees, in bytes
	vars     string       // template of the variables of UEFI firmware; "" with other firmware
	userData []byte       // of the project
	backing  qemu.Backing // what the overlay writes on top of: the base image, or the disk of a template
	memory   string       // the memory of a template that goes into one that can be saved again; "" where it is mapped
	copied   string       // the disk of a template that the overlay begins as a copy of; "" otherwise
	identity string       // private key that the guest lets in
	start    workspace.Start
	restored string // digest of the bootstrap that the template has run; "" where it has not
	saved    bool   // it will be made a template when it is ready, after its bootstrap, or both
	// settings are what a VM that runs is compared by.
	settings map[string]string
}

// planVM is the one translation from castra.toml to QEMU. It is pure.
func planVM(s site, vm config.VM) vmPlan {
	img := s.images[vm.Name]
	p := vmPlan{VM: vm, arch: archOf(vm), base: img.Base, size: max(int64(vm.DiskMiB)<<20, img.size), userData: img.userData, identity: vm.SSH.Identity}
	host := s.platforms[p.arch]
	if p.SSH.User == "" {
		p.SSH.User = p.base.User
	}
	if p.SSH.User == "" {
		p.SSH.User = "root"
	}
	if p.identity == "" {
		p.identity = s.layout.Identity()
	}
	switch {
	case vm.Kernel != "":
		p.base.Kernel, p.base.Initrd, p.base.Append = vm.Kernel, vm.Initrd, vm.Append
	case vm.Firmware != "": // and not the kernel that comes with the image
		p.base.Kernel, p.base.Initrd, p.base.Append = "", "", ""
	}
	p.backing = qemu.Backing{Path: p.base.Path, Format: p.base.Format}
	p.firmware = firmwareOf(vm, p.base)
	p.spec = qemu.Spec{
		Binary: host.system, Arch: p.arch, Dir: s.layout.Root, Name: vm.Name, UUID: uuid(s.layout.Root, vm.Name),
		Machine: qemu.Machine(p.arch), Accelerator: host.accelerator, CPUs: vm.CPUs, MemoryMiB: vm.MemoryMiB,
		Overlay: overlayPath(s, vm), Seed: s.layout.Seed(vm.Name), Forwards: forwards(vm),
		Pidfile: s.layout.Pidfile(vm.Name), Monitor: s.layout.MonitorName(vm.Name), SerialLog: s.layout.SerialLog(vm.Name),
		Kernel: p.base.Kernel, Initrd: p.base.Initrd, Append: p.base.Append,
		Sandbox: s.goos == "linux", Restrict: vm.Network == "isolated", CPU: vm.CPU,
		// The small guest's kernel has no driver for it, and would spend 20 ms of a restore on being told.
		GenerationID: p.arch == "amd64" && vm.Image != image.Small,
	}
	if p.firmware == "uefi" {
		p.vars = host.uefi.Vars
		p.spec.UEFI = host.uefi
		p.spec.UEFI.Vars = s.layout.Vars(vm.Name)
	}
	if vm.Machine != "" {
		p.spec.Machine = vm.Machine
	}
	p.settings = settings(p)
	return p
}

// firmwareOf is what the VM boots by: what castra.toml says, else what its image and its architecture need.
func firmwareOf(vm config.VM, base image.Base) string {
	switch {
	case vm.Firmware != "":
		return vm.Firmware
	case vm.Kernel != "", base.Kernel != "":
		return ""
	case base.Firmware != "":
		return base.Firmware
	case archOf(vm) == "amd64":
		return "bios"
	default:
		return "uefi"
	}
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
		"arch":       p.arch,
		"firmware":   p.firmware,
		"disk":       strconv.FormatInt(p.size, 10),
		"user_data":  digestOf(p.userData),
	}
	var rules []string
	for _, f := range p.spec.Forwards {
		rules = append(rules, f.String())
	}
	m["port_forwards"] = strings.Join(rules, ", ")
	return m
}

// digestOf names content that is not to be shown; "" of none.
func digestOf(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
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

// site asks this computer for what a plan needs, on behalf of a verb. Images that are not here yet are brought where get is set.
func (p *Project) site(ctx context.Context, verb string, vms []config.VM, get bool) (site, error) {
	s := site{layout: p.layout(), id: p.id, goos: runtime.GOOS, platforms: map[string]platform{}, images: map[string]vmImage{}}
	for _, vm := range vms { // before any image is fetched
		if err := p.findPlatform(ctx, s.platforms, verb, vm); err != nil {
			return s, err
		}
	}
	looked := map[string]vmImage{} // replicas need not be looked at twice
	for _, vm := range vms {
		key := fmt.Sprintf("%q", []string{archOf(vm), vm.Image, vm.BaseImage, vm.BaseURL, vm.Checksum, vm.UserData, strconv.Itoa(vm.DiskMiB)})
		img, known := looked[key]
		var err error
		if !known {
			img, err = p.vmImage(ctx, vm, get)
		}
		if err != nil {
			return s, &VMError{Op: verb, VM: vm.Name, Err: err}
		}
		looked[key], s.images[vm.Name] = img, img
	}
	return s, nil
}

// findPlatform looks once for what runs the guests of an architecture, and for UEFI firmware where a VM needs it.
func (p *Project) findPlatform(ctx context.Context, found map[string]platform, verb string, vm config.VM) error {
	arch := archOf(vm)
	h, known := found[arch]
	var err error
	if !known {
		if h.system, err = qemu.FindSystem(arch); err != nil {
			return err
		}
		if h.accelerator, err = qemu.ChooseAcceleratorFor(p.options.Accelerator, runtime.GOOS, goarch, arch, qemu.KVMDevice); err != nil {
			return err
		}
	}
	if h.uefi == (qemu.UEFI{}) && firmwareWanted(vm, p.options) == "uefi" {
		if h.uefi, err = qemu.FindUEFI(ctx, h.system, arch); err != nil {
			return &VMError{Op: verb, VM: vm.Name, Err: err}
		}
	}
	found[arch] = h
	return nil
}

// emulated tells of the first accelerator that is none.
func (s *site) emulated() (qemu.Accelerator, bool) {
	for _, arch := range slices.Sorted(maps.Keys(s.platforms)) {
		if a := s.platforms[arch].accelerator; a.Emulated() {
			return a, true
		}
	}
	return qemu.Accelerator{}, false
}
