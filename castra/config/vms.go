package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

const (
	maxVMs      = 64
	maxForwards = 256
	maxCPUs     = 1024
	maxPort     = 65535

	defaultCPUs   = 2
	defaultMemory = 2048
	sshPort       = 22
)

// namePattern makes names that are host names, file names and process names
// everywhere.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

const nameHelp = "write 1 to 32 lower-case letters, digits and dashes, with no dash at the ends"

func badProjectName(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "it is missing"
	case len([]rune(name)) > 64:
		return "it is longer than 64 characters"
	case strings.ContainsAny(name, `/\`):
		return "it holds a path separator"
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("it holds the character %U", r)
		}
	}
	return ""
}

// vms reads the tables and expands replicas. Checks that look at more than
// one VM come after.
func (l *loader) vms(tables []*table, base Bootstrap) {
	for _, t := range tables {
		vm, count := l.vm(t, base)
		t.done()
		if len(l.p.VMs)+count > maxVMs {
			t.fault("count", fmt.Sprintf("more than %d VMs", maxVMs), "start fewer")
			return
		}
		for i := range count {
			l.p.VMs = append(l.p.VMs, l.replica(vm, i, count))
		}
	}
	l.checkNames()
	l.checkForwards()
	l.checkOverlays()
}

func (l *loader) vm(t *table, base Bootstrap) (vm VM, count int) {
	vm.Line = l.f.lines.of(t.path)
	vm.Role = t.str("name", "")
	if !namePattern.MatchString(vm.Role) {
		problem := fmt.Sprintf("%q is no name of a VM", shorten(vm.Role))
		if vm.Role == "" {
			problem = "it is missing"
		}
		t.fault("name", problem, nameHelp)
	}
	vm.Description = t.str("description", "")
	count = t.integer("count", 1, 1, maxVMs)
	if l.single && count > 1 {
		t.fault("count", "schema 0.1 has no replicas", `write version = "0.2"`)
	}
	vm.CPUs = t.integer("cpus", defaultCPUs, 1, maxCPUs)
	vm.MemoryMiB = defaultMemory
	if v, ok := t.value("memory"); ok {
		mib, err := ParseMemory(v)
		if err != nil {
			t.fault("memory", err.Error(), memoryForms)
		} else {
			vm.MemoryMiB = mib
		}
	}
	l.images(t, &vm)
	vm.Overlay = l.overlay(t)
	vm.SSH = l.ssh(t.sub("ssh"))
	vm.Forwards = l.forwards(t.list("port_forwards"), vm.SSH.Port, count)
	vm.Bootstrap = l.bootstrap(t.sub("bootstrap"), base)
	t.refuse("managed_image", "there are no managed images any more", `write image = "small", or base_image with a path`)
	t.later("instances", "checksum", "network", "firmware", "machine", "cpu")
	return vm, count
}

// replica is the i-th VM of a role.
func (l *loader) replica(vm VM, i, count int) VM {
	vm.Index = i
	vm.Name = vm.Role
	if !l.single {
		vm.Name = fmt.Sprintf("%s-%d", vm.Role, i)
	}
	if vm.Overlay != "" && count > 1 {
		ext := filepath.Ext(vm.Overlay)
		vm.Overlay = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(vm.Overlay, ext), i, ext)
	}
	if vm.Bootstrap.Script == "" {
		vm.Bootstrap.Script = l.defaultScript(vm)
	}
	return vm
}

func (l *loader) images(t *table, vm *VM) {
	vm.Image = t.str("image", "")
	if _, ok := t.m["image"]; ok && vm.Image != "small" {
		t.fault("image", fmt.Sprintf("%q is no image this version of Castra knows", shorten(vm.Image)), `write image = "small", or base_image with a path`)
	}
	path := t.str("base_image", "")
	if _, ok := t.m["base_image"]; ok {
		switch {
		case vm.Image != "":
			t.fault("base_image", "image is given too", "keep one of them")
		case strings.Contains(path, "://"):
			t.fault("base_image", "this version of Castra does not download images yet", "download it, check its digest, and write its path")
		default:
			vm.BaseImage = l.file(t, "base_image", path)
		}
	}
	vm.Kernel = l.file(t, "kernel", t.str("kernel", ""))
	vm.Initrd = l.file(t, "initrd", t.str("initrd", ""))
	vm.Append = t.str("append", "")
	if _, ok := t.m["kernel"]; !ok {
		t.needs("initrd", "kernel")
		t.needs("append", "kernel")
	}
}

// needs files a fault for key when it stands without the other.
func (t *table) needs(key, other string) {
	if _, ok := t.m[key]; ok {
		t.fault(key, "it means nothing without "+other, "add "+other+", or remove it")
	}
}

func (l *loader) overlay(t *table) string {
	s := t.str("overlay", "")
	_, given := t.m["overlay"]
	switch {
	case !given:
		return ""
	case s == "" || strings.HasSuffix(s, "/"):
		t.fault("overlay", "it is no path of a file", "write a path that ends in .qcow2, or leave it out")
		return ""
	}
	if rest, inside := strings.CutPrefix(s, ".castra/"); inside {
		if !filepath.IsLocal(rest) {
			t.fault("overlay", "it leads out of the workspace", "leave out the ..")
			return ""
		}
		return ".castra/" + filepath.Clean(rest)
	}
	return l.path(t, "overlay", s)
}

func (l *loader) ssh(t *table) SSH {
	s := SSH{User: t.str("user", ""), Port: t.integer("port", sshPort, 1, maxPort)}
	if !regexp.MustCompile(`^([a-z_][a-z0-9_-]{0,31})?$`).MatchString(s.User) {
		t.fault("user", fmt.Sprintf("%q is no name of a user", shorten(s.User)), "write a login name of the guest")
	}
	s.Identity = l.file(t, "identity", t.str("identity", ""))
	t.done()
	return s
}

// checkNames looks at the names that came of the expansion.
func (l *loader) checkNames() {
	first := map[string]VM{}
	for _, vm := range l.p.VMs {
		before, taken := first[vm.Name]
		if !taken {
			first[vm.Name] = vm
			continue
		}
		l.f.addAt(vm.Line, "vms.name", fmt.Sprintf("VM %s is there twice: this one, and the one of line %d", vm.Name, before.Line),
			"give one another name, or raise count")
	}
}

// checkOverlays refuses a file that two VMs would write to, and one that a VM
// boots from.
func (l *loader) checkOverlays() {
	owners := map[string]VM{}
	images := map[string]VM{}
	for _, vm := range l.p.VMs {
		if vm.BaseImage != "" {
			images[realPath(vm.BaseImage)] = vm
		}
	}
	for _, vm := range l.p.VMs {
		if vm.Overlay == "" {
			continue
		}
		path := realPath(vm.Overlay)
		if other, ok := images[path]; ok {
			l.f.addAt(vm.Line, "vms.overlay", fmt.Sprintf("%s is the base image of %s, and would be thrown away at down", vm.Overlay, other.Name), "give the overlay a path of its own")
		}
		if other, ok := owners[path]; ok {
			l.f.addAt(vm.Line, "vms.overlay", fmt.Sprintf("%s and %s would both write to %s", other.Name, vm.Name, vm.Overlay), "give each a path of its own")
		}
		owners[path] = vm
	}
}

// realPath resolves what can be resolved: the file itself may not exist yet.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}
