package config

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
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
		instances := l.instances(t, vm, count)
		sharing := count
		for _, instance := range instances {
			if instance.has("port_forwards") {
				sharing--
			}
		}
		vm.Forwards = l.forwards(t, sharing)
		t.done()
		if total += count; total > maxVMs {
			continue
		}
		for i := range count {
			at := place{t.path, instances[i]}
			l.p.VMs = append(l.p.VMs, l.replica(vm, at, i, count))
			l.places = append(l.places, at)
		}
	}
	if total > maxVMs {
		l.f.add("vms", fmt.Sprintf("%d VMs with all replicas; at most %d", total, maxVMs), "declare fewer, or lower count")
	}
	l.checkNames()
	l.checkForwards()
	l.checkOverlays()
}

// vm reads what all replicas of a role have, but for the forwards.
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
	vm.MemoryMiB = memory(t, defaultMemory)
	vm.Warm = t.boolean("warm", true) && l.p.Warm
	l.images(t, &vm)
	hardware(t, &vm)
	vm.Overlay = l.overlay(t)
	vm.SSH = l.ssh(t.sub("ssh"))
	vm.SSH.Port = cmp.Or(vm.SSH.Port, sshPort)
	vm.Bootstrap = l.bootstrap(t.sub("bootstrap"), base)
	t.refuse("managed_image", "there are no managed images any more", `write image = "small", or base_image = "disk.qcow2"`)
	return vm, count
}

func memory(t *table, otherwise int) int {
	v, ok := t.value("memory")
	if !ok {
		return otherwise
	}
	mib, err := ParseMemory(v)
	if err != nil {
		t.fault("memory", err.Error(), memoryForms)
	}
	return mib
}

// replica is the i-th VM of a role.
func (l *loader) replica(vm VM, at place, i, count int) VM {
	vm.Index = i
	vm.Name = vm.Role
	if !l.single {
		vm.Name = replicaName(vm.Role, i)
	}
	if count > 1 {
		vm.Overlay = numbered(vm.Overlay, i)
	}
	vm.Forwards = slices.Clone(vm.Forwards)
	vm.Bootstrap.Env = maps.Clone(vm.Bootstrap.Env)
	if at.instance != nil {
		l.override(at.instance, &vm)
	}
	if vm.Bootstrap.Script == "" && vm.Role != "" {
		vm.Bootstrap.Script = l.defaultScript(vm, at.table)
	}
	if i == 0 {
		l.checkScriptless(vm.Bootstrap, join(at.table, "bootstrap"))
	}
	l.merge(&vm)
	vm.Forwards = withSSH(vm.Forwards, vm.SSH)
	return vm
}

func replicaName(role string, i int) string { return fmt.Sprintf("%s-%d", role, i) }

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
			pair := [2]string{l.places[owner].table, l.places[i].table}
			if pair[0] != pair[1] && !told[pair] {
				told[pair] = true
				l.f.add(l.places[i].table+".name", fmt.Sprintf("the name %s is taken by %s on line %d", name, pair[0], l.p.VMs[owner].Line),
					"give one of the two another name")
			}
		}
	}
}
