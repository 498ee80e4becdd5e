package castra

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/bootstrap"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

// rollbackLimit bounds the ending of what a failed or interrupted Up started.
// Mage allows 5 s after Ctrl-C.
const rollbackLimit = 4 * time.Second

// rollbackLadder leaves out the power button: nothing in a guest that never
// came up is worth saving.
var rollbackLadder = qemu.Ladder{Terminate: 1500 * time.Millisecond, Kill: 2 * time.Second}

// UpOptions say what Up starts. The zero value is all VMs, bootstrapped as
// castra.toml says.
type UpOptions struct {
	// VMs are names of VMs or roles; empty is all.
	VMs []string
	// Bootstrap overrides the mode of bootstrap: "skip", "auto" or "always"
	// for all, or "web=always,db=skip".
	Bootstrap string
}

// Up starts what does not run yet, waits until each VM lets us in by SSH, and
// bootstraps. VMs that run as configured are left alone; one that runs with
// other settings is a *ChangedError. Launch and boot are all or nothing: when
// a VM fails, or ctx ends, those that this call started, or found half started
// by a killed one, are taken down; so they are when a Down of another process
// wants the workspace, and Up is a *TakenDownError. A failed bootstrap leaves its VM running to be looked at.
func (p *Project) Up(ctx context.Context, o UpOptions) error {
	if p.fault != nil {
		return p.fault
	}
	vms, err := selectVMs(p.config.VMs, o.VMs)
	if err != nil {
		return err
	}
	modes, err := bootstrapModes(o.Bootstrap, p.config.VMs)
	if err != nil {
		return err
	}
	ctx, stop := workspace.UntilAskedDown(ctx, p.root)
	defer stop()
	return takenDown(ctx, p.up(ctx, o, vms, modes))
}

func (p *Project) up(ctx context.Context, o UpOptions, vms []config.VM, modes map[string]string) error {
	s, err := p.site(ctx, "up", vms, true)
	if err != nil {
		return err
	}
	ws, err := workspace.Create(p.root, p.id)
	if err != nil {
		return err
	}
	c, err := p.begin(ctx, ws, "up")
	if err != nil {
		return err
	}
	defer c.end()
	if c.session.foreign != nil {
		return c.finish("", c.session.foreign)
	}
	for _, w := range p.config.Warnings {
		c.warn("", w.Error(), w.Help)
	}
	release, err := p.keepImages(ctx, &s, vms)
	if err != nil {
		return c.finish("", takenDown(ctx, err))
	}
	defer release()
	u := &upRun{command: c, site: s, asked: o, modes: modes, plans: map[string]vmPlan{}, recorded: release}
	for _, vm := range vms {
		u.plans[vm.Name] = planVM(s, vm)
		u.names = append(u.names, vm.Name)
	}
	if u.templates, err = p.openTemplates(false); err != nil {
		c.warn("", fmt.Sprintf("VMs boot cold: %v", err), hint(err))
	}
	u.placeImages(ctx)
	_, emulated := s.emulated()
	u.queue = newQueue(bootSlots(emulated, len(vms)))
	ctx, cancel := beforeDeadline(ctx)
	defer cancel()
	summary, err := u.run(ctx)
	return c.finish(summary, takenDown(ctx, err))
}

// upRun is one Up at work.
type upRun struct {
	*command
	site  site
	asked UpOptions
	modes map[string]string
	plans map[string]vmPlan
	names []string
	// hostKeys are made for this run of each VM that is not to be a template, and pinned.
	hostKeys sync.Map
	// fresh are the VMs that this Up has started so that they can be saved: what runs in others, nobody knows.
	fresh     sync.Map
	templates *templates
	queue     *queue
	// recorded is called once what the VMs run from is on record.
	recorded func()
}

func (u *upRun) run(ctx context.Context) (string, error) {
	missing, unready, err := u.survey(ctx)
	if err != nil {
		return "", err
	}
	if err := u.preflight(ctx, missing); err != nil {
		return "", err
	}
	ours := slices.Concat(missing, unready)
	if err := u.start(ctx, missing, unready); err != nil {
		return "", u.rollback(ctx, ours, err)
	}
	ran, err := u.bootstrapAll(ctx)
	if err != nil && ctx.Err() != nil {
		return "", u.rollback(ctx, ours, err)
	}
	return u.summary(ours, ran), err
}

// survey sorts the VMs into those that must be started and those that an
// earlier, killed Up started and did not see through. The rest runs as
// configured; what runs otherwise is an error.
func (u *upRun) survey(ctx context.Context) (missing, unready []string, err error) {
	states := map[string]qemu.State{}
	var mu sync.Mutex
	err = parallel(u.names, func(vm string) error {
		r, _ := u.session.get(vm)
		var s qemu.State
		var err error
		u.during(vm, "a QEMU that an up which was killed had launched", qemu.StartLimit, func() {
			s, err = qemu.InspectSettled(ctx, target(u.ws.Layout, vm, r))
		})
		if err == nil {
			s, err = u.mend(ctx, vm, s)
		}
		if err != nil {
			return &VMError{Op: "up", VM: vm, Phase: "clean up after an earlier run", Err: err}
		}
		mu.Lock()
		defer mu.Unlock()
		states[vm] = s
		if s.Alive() {
			return u.checkRunning(vm, s)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, vm := range u.names {
		r, known := u.session.get(vm)
		switch {
		case !states[vm].Alive():
			missing = append(missing, vm)
			if known {
				if _, err := u.reclaim(vm, r, "orphan"); err != nil {
					return nil, nil, &VMError{Op: "up", VM: vm, Phase: "clean up after an earlier run", Err: err}
				}
			}
		case r.Ready.IsZero():
			unready = append(unready, vm)
		}
	}
	return missing, unready, nil
}

// checkRunning tells why a VM that runs cannot stand for the one configured.
func (u *upRun) checkRunning(vm string, s qemu.State) error {
	r, known := u.session.get(vm)
	if !known {
		return &VMError{Op: "up", VM: vm, Err: fmt.Errorf("it runs (pid %d) and its record is lost", s.PID), Next: "mage down ends it"}
	}
	if s.Status != "" && s.Status != "running" {
		return &VMError{Op: "up", VM: vm, Err: fmt.Errorf("it runs (pid %d) and is %s", s.PID, s.Status),
			Next: "mage down, and make room on the disk if it is full"}
	}
	if s.Status == "" && !r.Ready.IsZero() { // of one that has yet to let us in, the wait tells more
		return &VMError{Op: "up", VM: vm, Err: fmt.Errorf("it runs (pid %d) and does not answer: %w", s.PID, s.Err), Next: "mage down ends it"}
	}
	if diff := differences(r.Settings, u.plans[vm].settings); len(diff) > 0 {
		return &ChangedError{vm, diff}
	}
	return nil
}

func differences(running, wanted map[string]string) []string {
	var diff []string
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if running[key] != wanted[key] {
			diff = append(diff, fmt.Sprintf("%s: runs with %s, castra.toml says %s", key, orNone(running[key]), orNone(wanted[key])))
		}
	}
	return diff
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// start launches the missing VMs and waits until these and the unready ones
// let us in. The first fault ends the waiting for all.
func (u *upRun) start(ctx context.Context, missing, unready []string) error {
	defer u.recorded()
	if len(missing)+len(unready) == 0 {
		return nil
	}
	if err := u.record(ctx, missing); err != nil {
		return err
	}
	u.recorded()
	if a, emulated := u.site.emulated(); emulated && len(missing) > 0 {
		u.events.Emit(event.Message{Level: "info", Text: fmt.Sprintf("no hardware acceleration (%s): guests are emulated, and waits are %g times as long", a.Reason, emulationFactor)})
	}
	if os.Geteuid() == 0 && len(missing) > 0 {
		u.events.Emit(event.Message{Level: "info", Text: asRoot, Hint: "run mage as a user of its own; Castra needs no root"})
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	return parallel(slices.Concat(missing, unready), func(vm string) error {
		var err error
		if slices.Contains(missing, vm) {
			err = u.startOne(ctx, u.plans[vm])
		} else { // an earlier up launched it
			var client *guest.Client
			if client, err = u.awaitReady(ctx, u.plans[vm], nil); err == nil {
				client.Close()
			}
		}
		if errors.Is(context.Cause(ctx), errSibling) && (errors.Is(err, errSibling) || errors.Is(err, context.Canceled)) {
			return nil // broken off by the fault of another VM, which is reported
		}
		if err != nil {
			stop(errSibling)
		}
		return err
	})
}

var errSibling = errors.New("another VM failed")

// rollback ends what this Up started, within the time that is left after
// Ctrl-C, and gives back the error that led to it.
func (u *upRun) rollback(ctx context.Context, vms []string, cause error) error {
	if len(vms) == 0 {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
	defer cancel()
	return errors.Join(cause, parallel(vms, func(vm string) error {
		_, err := u.takeDown(ctx, vm, rollbackLadder, "up failed")
		return err
	}))
}

func (u *upRun) summary(started []string, bootstrapped int) string {
	running := fmt.Sprintf("%s running", count(len(u.names), "VM"))
	switch {
	case len(started) == 0 && bootstrapped == 0:
		return running + " as configured, nothing to do"
	case len(started) < len(u.names):
		return fmt.Sprintf("%s, %d of them started now", running, len(started))
	default:
		return running
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// record writes who this workspace belongs to, and the intent to start the
// missing VMs, before anything is made for them.
func (u *upRun) record(ctx context.Context, missing []string) error {
	key, err := digestKey(u.ws.Layout) // castra.toml holds values of env
	if err != nil {
		return err
	}
	var all []string
	for _, vm := range u.config.VMs {
		all = append(all, vm.Name)
	}
	policy := make([]string, 0, len(u.names))
	for _, vm := range u.names {
		policy = append(policy, vm+"="+u.modes[vm])
	}
	err = u.ws.SaveRecord(workspace.Record{
		Project: u.config.Name, Config: u.config.File, ConfigDigest: "hmac-sha256:" + hex.EncodeToString(keyed(key, u.config.Source)),
		Bootstrap: policy, Invocation: u.invocation(), VMs: all,
	}, u.config.Snapshot())
	if err != nil {
		return err
	}
	l := u.config.Lifecycle
	u.session.waits(workspace.Waits{Graceful: l.Graceful, Terminate: l.Terminate, Kill: l.Kill})
	return u.prepare(ctx, missing)
}

// invocation is how this Up was asked for, for the record.
func (u *upRun) invocation() []string {
	words := append([]string{"up"}, u.asked.VMs...)
	if u.asked.Bootstrap != "" {
		words = append(words, "bootstrap="+u.asked.Bootstrap)
	}
	if u.options.Force {
		words = append(words, "force")
	}
	if u.options.BaseImage != "" {
		words = append(words, "base_image="+u.options.BaseImage)
	}
	if u.options.Accelerator != "" {
		words = append(words, "accelerator="+u.options.Accelerator)
	}
	return words
}

// selectVMs picks the VMs called by name or role, in the order of castra.toml.
func selectVMs(all []config.VM, names []string) ([]config.VM, error) {
	if len(names) == 0 {
		return all, nil
	}
	wanted := map[string]bool{}
	for _, name := range names {
		found := false
		for _, vm := range all {
			if vm.Name == name || vm.Role == name {
				wanted[vm.Name], found = true, true
			}
		}
		if !found {
			return nil, &UnknownVMError{name, vmNames(all)}
		}
	}
	var vms []config.VM
	for _, vm := range all {
		if wanted[vm.Name] {
			vms = append(vms, vm)
		}
	}
	return vms, nil
}

func vmNames(vms []config.VM) []string {
	var names []string
	for _, vm := range vms {
		names = append(names, vm.Name)
	}
	return names
}

// bootstrapModes is the mode of every VM after the override of this run.
func bootstrapModes(override string, vms []config.VM) (map[string]string, error) {
	roles := map[string]string{}
	modes := map[string]string{}
	for _, vm := range vms {
		roles[vm.Name] = vm.Role
		modes[vm.Name] = vm.Bootstrap.Mode
	}
	changed, err := bootstrap.ParseOverride(override, roles)
	if err != nil {
		return nil, &usageError{err.Error(), "write CASTRA_BOOTSTRAP=skip, auto or always, or web=always,db=skip"}
	}
	maps.Copy(modes, changed)
	return modes, nil
}
