package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const (
	maxVMs  = 64
	maxCPUs = 1024

	defaultCPUs   = 2
	defaultMemory = 2048 // MiB
	sshPort       = 22
)

// namePattern makes names that are host names, file names and process names
// everywhere, also with an index behind them.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

const nameHelp = "write 1 to 32 lower-case letters, digits and dashes, with no dash at the ends"

// vms reads the tables and expands replicas. Checks that look at more than
// one VM come after.
func (l *loader) vms(tables []*table, base Bootstrap) {
	total := 0
	for _, t := range tables {
		vm, count := l.vm(t, base)
		total += count
		if total <= maxVMs {
			for i := range count {
				l.p.VMs = append(l.p.VMs, l.replica(vm, t.path, i, count))
				l.paths = append(l.paths, t.path)
			}
		}
	}
	if total > maxVMs {
		l.f.add("vms", fmt.Sprintf("%d VMs with all replicas; at most %d", total, maxVMs), "declare fewer, or lower count")
	}
	l.checkNames()
	l.checkForwards()
	l.checkOverlays()
}

func (l *loader) vm(t *table, base Bootstrap) (vm VM, count int) {
	vm.Line = l.f.lines.of(t.path)
	if s, ok := t.required("name", nameHelp); ok {
		if namePattern.MatchString(s) {
			vm.Role = s
		} else {
			t.fault("name", fmt.Sprintf("%q is no name of a VM", shorten(s)), nameHelp)
		}
	}
	vm.Description, _ = t.str("description")
	count = t.integer("count", 1, 1, maxVMs)
	if l.single && count > 1 {
		t.fault("count", "schema 0.1 has no replicas", `write version = "0.2"`)
		count = 1
	}
	vm.CPUs = t.integer("cpus", defaultCPUs, 1, maxCPUs)
	vm.MemoryMiB = defaultMemory
	if v, ok := t.value("memory"); ok {
		mib, err := ParseMemory(v)
		if err != nil {
			t.fault("memory", err.Error(), memoryForms)
		}
		vm.MemoryMiB = mib
	}
	l.images(t, &vm)
	vm.Overlay = l.overlay(t)
	vm.SSH = l.ssh(t.sub("ssh"))
	vm.Forwards = l.forwards(t, vm.SSH.Port, count)
	vm.Bootstrap = l.bootstrap(t.sub("bootstrap"), base)
	t.refuse("managed_image", "there are no managed images any more", `write image = "small", or base_image = "disk.qcow2"`)
	t.done("instances", "checksum", "network", "firmware", "machine", "cpu")
	return vm, count
}

// replica is the i-th VM of the role that the table at path gives.
func (l *loader) replica(vm VM, path string, i, count int) VM {
	vm.Index = i
	vm.Name = vm.Role
	if !l.single {
		vm.Name = fmt.Sprintf("%s-%d", vm.Role, i)
	}
	if count > 1 {
		vm.Overlay = numbered(vm.Overlay, i)
	}
	vm.Forwards = slices.Clone(vm.Forwards)
	vm.Bootstrap.Env = maps.Clone(vm.Bootstrap.Env)
	if vm.Bootstrap.Script == "" && vm.Role != "" {
		vm.Bootstrap.Script = l.defaultScript(vm, path)
	}
	if i == 0 {
		l.checkScriptless(vm.Bootstrap, join(path, "bootstrap"))
	}
	return vm
}

func (l *loader) images(t *table, vm *VM) {
	const imageHelp = `write image = "small", or base_image = "disk.qcow2"`
	if s, ok := t.str("image"); ok {
		if vm.Image = s; s != "small" {
			t.fault("image", fmt.Sprintf("%q is no image this version of Castra knows", shorten(s)), imageHelp)
		}
	}
	url := ""
	if s, ok := t.m["base_image"].(string); ok && strings.Contains(s, "://") {
		url = s
	}
	switch {
	case t.has("image") && t.has("base_image"):
		t.value("base_image")
		t.fault("base_image", "image is given too", "keep one of the two")
	case url != "":
		t.value("base_image")
		t.fault("base_image", "this version of Castra does not download images", "download "+shorten(url)+", check its digest, and write the path of the file")
	default:
		vm.BaseImage = l.file(t, "base_image")
	}
	vm.Kernel = l.file(t, "kernel")
	vm.Initrd = l.file(t, "initrd")
	vm.Append, _ = t.str("append")
	for _, key := range []string{"initrd", "append"} {
		if t.has(key) && !t.has("kernel") {
			t.fault(key, "it means nothing without kernel", "add kernel, or remove it")
		}
	}
}

var userPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

func (l *loader) ssh(t *table) SSH {
	var s SSH
	if user, ok := t.str("user"); ok {
		if s.User = user; !userPattern.MatchString(user) {
			t.fault("user", fmt.Sprintf("%q is no name of a user", shorten(user)), "write a login name of the guest: letters, digits, _, . and -, at most 32")
		}
	}
	s.Port = t.integer("port", sshPort, 1, maxPort)
	s.Identity = l.file(t, "identity")
	t.done()
	return s
}

// checkNames refuses two definitions that answer to one name: those of their
// VMs, and the role, which may stand for a lone VM.
func (l *loader) checkNames() {
	owners := map[string]int{}
	told := map[[2]string]bool{}
	for i, vm := range l.p.VMs {
		if vm.Role == "" {
			continue
		}
		for _, name := range []string{vm.Role, vm.Name} {
			owner, taken := owners[name]
			if !taken {
				owners[name] = i
				continue
			}
			pair := [2]string{l.paths[owner], l.paths[i]}
			if pair[0] != pair[1] && !told[pair] {
				told[pair] = true
				l.f.add(l.paths[i]+".name", fmt.Sprintf("the name %s is taken by %s on line %d", name, pair[0], l.p.VMs[owner].Line),
					"give one of the two another name")
			}
		}
	}
}
