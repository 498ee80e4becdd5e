package config

import "fmt"

// instances reads the ids of a role's [[vms.instances]], and gives each table
// by the index of its replica.
func (l *loader) instances(t *table, vm VM, count int) map[int]*table {
	all := map[int]*table{}
	tables := t.list("instances", maxVMs)
	if l.single && len(tables) > 0 {
		t.fault("instances", "schema 0.1 has no replicas", `write version = "0.2"`)
		return all
	}
	unsure := vm.Role == "" || t.f.has(t.at("count"))
	for _, instance := range tables {
		id, ok := instance.required("id", `write the name of the replica that it is for, such as "web-0"`)
		i := indexOf(id, vm.Role, count)
		switch {
		case ok && !unsure && i < 0:
			instance.fault("id", fmt.Sprintf("%q is no replica of %s", shorten(id), vm.Role), replicaHelp(vm.Role, count))
		case ok && !unsure && all[i] != nil:
			instance.fault("id", fmt.Sprintf("%s has an entry on line %d already", id, t.f.lines.of(all[i].path)), "keep one of the two")
		case ok && !unsure:
			all[i] = instance
			continue
		}
		l.override(instance, &vm) // for its other faults
	}
	return all
}

// indexOf is the index of a role's replica; -1 where it is none.
func indexOf(id, role string, count int) int {
	for i := range count {
		if id == replicaName(role, i) {
			return i
		}
	}
	return -1
}

func replicaHelp(role string, count int) string {
	if count == 1 {
		return fmt.Sprintf("write %s, or raise count", replicaName(role, 0))
	}
	return fmt.Sprintf("write one of %s to %s, or raise count", replicaName(role, 0), replicaName(role, count-1))
}

// override puts what an instance gives over its role.
func (l *loader) override(t *table, vm *VM) {
	if s, ok := t.str("description"); ok {
		vm.Description = s
	}
	if base, address, digest := l.baseImage(t); t.has("base_image") {
		vm.BaseImage, vm.BaseURL, vm.Checksum, vm.Image = base, address, digest, ""
	}
	if overlay := l.overlay(t); t.has("overlay") {
		vm.Overlay = overlay
	}
	vm.CPUs = t.integer("cpus", vm.CPUs, 1, maxCPUs)
	vm.MemoryMiB = memory(t, vm.MemoryMiB)
	if forwards := l.forwards(t, 1); t.has("port_forwards") {
		vm.Forwards = forwards
	}
	t.done()
}
