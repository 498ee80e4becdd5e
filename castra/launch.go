package castra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/logs"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/seed"
	"castra.example/castra/castra/internal/workspace"
)

const (
	exitGrace = 500 * time.Millisecond
	loopback  = "127.0.0.1"
)

// prepare records the intent to start these VMs, reserves their overlays, and
// records which files those are. Killed at any point, what it leaves is on
// record as ours.
func (u *upRun) prepare(ctx context.Context, vms []string) error {
	if len(vms) == 0 {
		return nil
	}
	if err := u.ws.MakeDir(u.ws.Overlays()); err != nil {
		return err
	}
	var records []workspace.VM
	for _, vm := range vms {
		p := u.plans[vm]
		if err := u.clearOverlay(p); err != nil {
			return &VMError{Op: "up", VM: vm, Phase: "overlay", Err: err}
		}
		key, err := u.hostKey(p)
		if err != nil {
			return &VMError{Op: "up", VM: vm, Phase: "seed", Err: err}
		}
		records = append(records, workspace.VM{
			Name: vm, Role: p.Role, UUID: p.spec.UUID, BootID: host.BootID(), Accelerator: p.spec.Accelerator.Name,
			Launched: time.Now().UTC(), Settings: p.settings, Health: "booting",
			Overlay: workspace.Overlay{Path: p.spec.Overlay, BaseImage: p.base.Path},
			SSH:     workspace.SSH{User: p.SSH.User, Host: loopback, Identity: p.identity, HostKey: key.Public},
		})
	}
	if err := u.session.put(records...); err != nil {
		return err
	}
	for i := range records {
		id, err := qemu.ReserveOverlay(records[i].Overlay.Path)
		if err != nil {
			return &VMError{Op: "up", VM: records[i].Name, Phase: "overlay", Err: err}
		}
		records[i].Overlay.ID = id
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return u.session.put(records...)
}

// clearOverlay makes sure that nothing stands where the overlay will. A file
// in Castra's own directory is a leftover; one elsewhere is the user's.
func (u *upRun) clearOverlay(p vmPlan) error {
	path := p.spec.Overlay
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(filepath.Dir(path), 0o700)
	} else if err != nil {
		return err
	}
	if path == u.ws.Overlay(u.ws.ID, p.Name) {
		_, err := u.discardOverlay(p.Name, workspace.VM{}, "orphan")
		return err
	}
	return &OverlayExistsError{path}
}

// OverlayExistsError says: a file stands where castra.toml puts an overlay, and it
// is not known to be Castra's.
type OverlayExistsError struct{ Path string }

func (e *OverlayExistsError) Error() string {
	return fmt.Sprintf("%s exists, and Castra did not make it", e.Path)
}

// Hint says what to do next.
func (e *OverlayExistsError) Hint() string {
	return "move the file away, or give another path as overlay"
}

// letRun asks a QEMU that boots for its forwards, and lets one that is to be restored run.
func letRun(ctx context.Context, p vmPlan, t qemu.Target) (phase string, inForce []qemu.Forward, err error) {
	if p.spec.State == "" {
		inForce, err = qemu.Forwards(ctx, t)
		return "launch", inForce, err
	}
	inForce, err = qemu.Restore(ctx, t, p.memory)
	return "restore", inForce, err
}

// launch starts one prepared VM and records what it became.
func (u *upRun) launch(ctx context.Context, p vmPlan) (*qemu.Process, error) {
	fault := func(phase string, err error) (*qemu.Process, error) {
		if p.start.Kind == startRAM {
			return nil, u.coldInstead(p.Name, phase, err)
		}
		return nil, u.fault(p.Name, phase, err)
	}
	began := time.Now()
	if err := makeOverlay(ctx, p); err != nil {
		return fault("overlay", err)
	}
	u.events.Emit(event.OverlayPrepared{VM: p.Name, Path: p.spec.Overlay, BaseImage: p.backing.Path, ElapsedMS: time.Since(began).Milliseconds()})
	r, _ := u.session.get(p.Name)
	if err := u.writeSeed(p); err != nil {
		return fault("seed", err)
	}
	if err := u.clearRun(p.Name); err != nil {
		return fault("launch", err)
	}
	if p.vars != "" {
		if err := qemu.MakeVars(p.vars, p.spec.UEFI.Vars); err != nil {
			return fault("firmware", err)
		}
	}
	r.Start = p.start
	if err := u.session.put(r); err != nil {
		return fault("launch", err)
	}
	u.events.Emit(event.StartChosen{VM: p.Name, Start: r.Start.Kind, Stage: r.Start.Stage, Template: r.Start.Template, Reason: r.Start.Reason})
	u.log().Debug("start QEMU", "vm", p.Name, "binary", p.spec.Binary, "args", p.spec.Args())
	proc, err := qemu.Start(ctx, p.spec, u.ws.QEMULog(p.Name))
	if err != nil {
		return fault("launch", u.portTaken(ctx, p, err))
	}
	r.PID = proc.PID
	phase, inForce, err := letRun(ctx, p, target(u.ws.Layout, p.Name, r))
	if err != nil {
		return fault(phase, u.portTaken(ctx, p, orExit(proc, p.Name, u.ws.QEMULog(p.Name), err)))
	}
	if err := setForwards(&r, p, inForce); err != nil {
		return fault("launch", err)
	}
	if err := u.session.put(r); err != nil {
		return fault("launch", err)
	}
	u.events.Emit(event.Launched{VM: p.Name, PID: r.PID, Accelerator: r.Accelerator, CPUs: p.CPUs, MemoryMiB: p.MemoryMiB, Forwards: eventForwards(r.Forwards)})
	return proc, nil
}

// coldInstead is the fault of a VM that will be booted instead: one line, with the last one of QEMU's.
func (u *upRun) coldInstead(vm, phase string, err error) error {
	if said, _ := logs.Tail(u.ws.QEMULog(vm), 1); len(said) > 0 {
		err = fmt.Errorf("%w: %s", err, said[0])
	}
	return &VMError{Op: "up", VM: vm, Phase: phase, Err: err}
}

func makeOverlay(ctx context.Context, p vmPlan) error {
	if p.copied != "" {
		return qemu.CopyOverlay(ctx, p.copied, p.spec.Overlay)
	}
	return qemu.CreateOverlay(p.backing, p.size, p.spec.Overlay)
}

// orExit prefers the end of QEMU as the cause of what failed meanwhile. A
// QEMU that ends closes its monitor a little before it can be waited for.
func orExit(proc *qemu.Process, vm, log string, err error) error {
	select {
	case <-proc.Exited():
		return proc.ExitError(vm, log)
	case <-time.After(exitGrace):
		return err
	}
}

// writeSeed makes the seed for this run of the VM.
func (u *upRun) writeSeed(p vmPlan) error {
	key, err := readKey(p.identity)
	if err != nil {
		return err
	}
	hostKey, err := u.hostKey(p)
	if err != nil {
		return err
	}
	s := seed.Seed{
		InstanceID: fmt.Sprintf("%s-%s-%d", u.id, p.Name, time.Now().UnixNano()),
		Hostname:   p.Name, User: p.SSH.User, AuthorizedKeys: []string{key.Public}, HostKey: hostKey, Extra: p.userData,
	}
	if u.templates.refusal(p) == "" { // a guest that boots from the disk of a template has been configured already
		s.InstanceID = fmt.Sprintf("%s-%s", u.id, p.Role)
	}
	return s.Write(p.spec.Seed)
}

// clearRun removes what an earlier run of the VM may have left in this one's
// way, and keeps its logs once.
func (u *upRun) clearRun(vm string) error {
	if gone, err := removePidfile(u.ws, vm); err != nil || !gone {
		return cmp.Or(err, qemu.Held(u.ws.Pidfile(vm)))
	}
	if err := removeSocket(u.ws, vm); err != nil {
		return err
	}
	for _, log := range []string{u.ws.QEMULog(vm), u.ws.SerialLog(vm)} {
		if err := u.ws.RotateLog(log, -1); err != nil {
			return err
		}
	}
	return nil
}

// setForwards takes the rules in force into the record, and finds the port
// that leads to the guest's SSH.
func setForwards(r *workspace.VM, p vmPlan, inForce []qemu.Forward) error {
	r.Forwards = nil
	if p.SSH.Host != "" {
		r.SSH.Host, r.SSH.Port = p.SSH.Host, p.SSH.Port
	}
	for _, f := range inForce {
		r.Forwards = append(r.Forwards, workspace.Forward(f))
		if f.Protocol == "tcp" && f.GuestPort == p.SSH.Port && r.SSH.Port == 0 {
			r.SSH.Port = f.HostPort
			if ip := net.ParseIP(f.HostIP); ip != nil && !ip.IsUnspecified() {
				r.SSH.Host = f.HostIP
			}
		}
	}
	if r.SSH.Port == 0 {
		return fmt.Errorf("QEMU has no forward to the guest's SSH port %d", p.SSH.Port)
	}
	return nil
}

func eventForwards(fs []workspace.Forward) []event.Forward {
	var out []event.Forward
	for _, f := range fs {
		out = append(out, event.Forward(f))
	}
	return out
}
