package config

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// LoadSnapshot reads back what Snapshot wrote to file, as the castra.toml at
// origin, which need not be there, nor need any file that it names. What a
// snapshot does not hold stays empty: Source, Warnings, Synthetic and
// Bootstrap.Env. Lines are those of file. Where replicas had scripts, or ways to
// log in, that differ, all have those of the first. Errors are those of Load.
func LoadSnapshot(file, origin string) (*Project, error) {
	dir := filepath.Dir(origin)
	_, t, err := parse(file, dir, &faults{})
	if err != nil {
		return nil, err
	}
	l := newLoader(&Project{File: origin, Dir: dir}, t.f)
	l.recorded = true
	return l.load(t)
}

// Snapshot is the project as a castra.toml that says everything: absolute
// paths, defaults filled in. It holds no values of Bootstrap.Env, and is the
// same for the same project.
func (p *Project) Snapshot() []byte {
	w := &writer{dir: p.Dir}
	w.line("# %s as Castra last used it: paths are absolute, defaults filled in.", FileName)
	if p.Synthetic {
		w.line("# There was none in %q: Castra made it up.", p.Dir)
	} else {
		w.line("# It stood in %q.", p.File)
	}
	w.line("# Castra reads this where that is gone. Nothing written here changes a VM.")
	w.str("version", p.Version)
	w.line("\n[project]")
	w.str("name", p.Name)
	w.path("state_dir", p.StateDir)
	w.line("warm = %t", p.Warm)
	w.line("\n[lifecycle]")
	w.secs("graceful_shutdown_wait_secs", p.Lifecycle.Graceful)
	w.secs("sigterm_wait_secs", p.Lifecycle.Terminate)
	w.secs("sigkill_wait_secs", p.Lifecycle.Kill)
	for from := 0; from < len(p.VMs); {
		to := from + 1
		for to < len(p.VMs) && p.VMs[to].Role == p.VMs[from].Role {
			to++
		}
		w.role(p.VMs[from:to])
		from = to
	}
	return w.Bytes()
}

// writer writes TOML. Keys without a value are left out.
type writer struct {
	bytes.Buffer
	dir string // that paths are relative to where UTF-8 cannot tell them
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

func (w *writer) str(key, value string) {
	if value != "" {
		w.line("%s = %s", key, quote(value))
	}
}

func (w *writer) path(key, path string) {
	if !utf8.ValidString(path) {
		if rel, err := filepath.Rel(w.dir, path); err == nil {
			path = "./" + rel
		}
	}
	w.str(key, path)
}

func (w *writer) secs(key string, d time.Duration) { w.line("%s = %d", key, d/time.Second) }

// role writes the replicas of one. What they have in common is what the first
// of them has that boots from no base_image of its own.
func (w *writer) role(replicas []VM) {
	vm := replicas[0]
	if i := slices.IndexFunc(replicas, func(vm VM) bool { return vm.BaseImage == "" && vm.BaseURL == "" }); i >= 0 {
		vm = replicas[i]
	}
	w.line("\n[[vms]]")
	w.str("name", vm.Role)
	if len(replicas) > 1 {
		w.line("count = %d", len(replicas))
	} else {
		w.overlay(vm)
	}
	w.str("description", vm.Description)
	w.str("image", vm.Image)
	w.base(vm)
	if vm.DiskMiB > 0 {
		w.line(`disk = "%d MiB"`, vm.DiskMiB)
	}
	w.path("user_data", vm.UserData)
	w.str("arch", vm.Arch)
	w.line("cpus = %d", vm.CPUs)
	w.line(`memory = "%d MiB"`, vm.MemoryMiB)
	w.line("warm = %t", vm.Warm)
	w.str("network", vm.Network)
	w.str("machine", vm.Machine)
	w.str("cpu", vm.CPU)
	w.str("firmware", vm.Firmware)
	w.path("kernel", vm.Kernel)
	w.path("initrd", vm.Initrd)
	w.str("append", vm.Append)
	w.forwards(vm.Forwards)
	w.login(replicas[0].SSH)
	w.bootstrap(replicas[0].Bootstrap)
	if len(replicas) > 1 {
		for _, replica := range replicas {
			w.instance(vm, replica)
		}
	}
}

// overlay writes one as it was given: paths in the workspace are relative.
func (w *writer) overlay(vm VM) {
	if filepath.IsAbs(vm.Overlay) {
		w.path("overlay", vm.Overlay)
	} else {
		w.str("overlay", vm.Overlay)
	}
}

func (w *writer) base(vm VM) {
	w.path("base_image", vm.BaseImage)
	w.str("base_image", vm.BaseURL)
	w.str("checksum", vm.Checksum)
}

func (w *writer) forwards(all []Forward) {
	if len(all) == 0 {
		w.line("port_forwards = []")
		return
	}
	w.line("port_forwards = [")
	for _, f := range all {
		w.line("  { host_ip = %s, host = %d, guest = %d, protocol = %s },", quote(f.HostIP), f.HostPort, f.GuestPort, quote(f.Protocol))
	}
	w.line("]")
}

func (w *writer) login(s SSH) {
	w.line("\n[vms.ssh]")
	w.str("user", s.User)
	w.str("host", s.Host)
	w.line("port = %d", s.Port)
	w.path("identity", s.Identity)
}

func (w *writer) bootstrap(b Bootstrap) {
	w.line("\n[vms.bootstrap]")
	w.str("mode", b.Mode)
	w.path("script", b.Script)
	w.path("payload", b.Payload)
	w.secs("handshake_timeout_secs", b.HandshakeTimeout)
	w.str("remote_dir", b.RemoteDir)
	w.str("verify_command", b.VerifyCommand)
	w.str("verify_path", b.VerifyPath)
	if len(b.Env) > 0 {
		w.line("# env, without the values: %s", strings.Join(slices.Sorted(maps.Keys(b.Env)), ", "))
	}
}

// instance writes in what a replica differs from its role.
func (w *writer) instance(role, vm VM) {
	i := &writer{dir: w.dir}
	if vm.Description != role.Description {
		i.line("description = %s", quote(vm.Description))
	}
	if vm.BaseImage != role.BaseImage || vm.BaseURL != role.BaseURL || vm.Checksum != role.Checksum {
		i.base(vm)
	}
	i.overlay(vm)
	if vm.CPUs != role.CPUs {
		i.line("cpus = %d", vm.CPUs)
	}
	if vm.MemoryMiB != role.MemoryMiB {
		i.line(`memory = "%d MiB"`, vm.MemoryMiB)
	}
	if !slices.EqualFunc(vm.Forwards, role.Forwards, sameRule) {
		i.forwards(vm.Forwards)
	}
	if i.Len() > 0 {
		w.line("\n[[vms.instances]]\nid = %s", quote(vm.Name))
		w.Write(i.Bytes())
	}
}

func sameRule(a, b Forward) bool {
	a.Line, b.Line = 0, 0
	return a == b
}

// quote writes a string of TOML; what is no UTF-8, which TOML cannot hold,
// becomes U+FFFD.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"', r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r < ' ', r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}
