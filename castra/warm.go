package castra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/warm"
)

const (
	// wakeLimit is how long a restored guest may take to answer and be woken, when no more are restored than there are
	// cores; it takes 0.4 s under TCG. After that it is booted instead.
	wakeLimit = 5 * time.Second
	wakeRetry = 50 * time.Millisecond
	// settle is how long an emulated guest is left alone before it is saved. What it still does for the last
	// connection it would otherwise do after each restore, all of it translated anew: 60 ms.
	settle = 100 * time.Millisecond
	// templateRoom is left free on the disk at least, in bytes.
	templateRoom = 512 << 20
	// templatesMax is what templates may take under CASTRA_HOME, in bytes, where the user says nothing.
	templatesMax = 10 << 30
)

// queue lets VMs that are alike wait for the first of them, from which the
// others are then restored, and lets no more boot at once than there are slots.
type queue struct {
	mu    sync.Mutex
	led   map[string]chan struct{}
	slots chan struct{} // holds one token for each guest that may begin to boot
}

func newQueue(slots int) *queue {
	q := &queue{led: map[string]chan struct{}{}, slots: make(chan struct{}, slots)}
	for range slots {
		q.slots <- struct{}{}
	}
	return q
}

// lead makes the caller the first of those alike, who must call done; or gives what the others wait for.
func (q *queue) lead(alike string) (done func(), wait <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if ch, ok := q.led[alike]; ok {
		return nil, ch
	}
	ch := make(chan struct{})
	q.led[alike] = ch
	return sync.OnceFunc(func() { close(ch) }), nil
}

// startOne starts a VM by the least work there is. A restore that fails is a boot, once.
func (u *upRun) startOne(ctx context.Context, p vmPlan) error {
	bootstrap, err := dueDigestOf(u.ws.Layout, p, u.modes[p.Name])
	if err != nil {
		return &VMError{Op: "up", VM: p.Name, Phase: "bootstrap", Err: err}
	}
	w, done, err := u.chooseWay(ctx, p, bootstrap)
	defer done()
	if err != nil {
		return err
	}
	defer w.release()
	if w.Kind == startRAM {
		err := u.restore(ctx, u.applied(p, w, bootstrap), w.template)
		if err == nil || ctx.Err() != nil {
			return err
		}
		why := fmt.Sprintf("it could not be restored (%v)", err)
		u.warn(p.Name, why+", so it boots", "")
		if err := u.startOver(ctx, p, w, err); err != nil {
			return err
		}
		w = cold(why)
	}
	booted := u.applied(p, w, bootstrap)
	var reading sync.WaitGroup
	defer reading.Wait()
	if booted.saved { // what is read now, while the guest boots, is remembered when it is saved
		reading.Go(func() { _, _, _ = u.templates.outline(ctx, p) })
	}
	client, err := u.boot(ctx, booted)
	if err != nil {
		return err
	}
	defer client.Close()
	if !booted.saved {
		return nil
	}
	reading.Wait()
	return u.save(ctx, p, client, warm.Ready, "")
}

// applied is the plan of a VM started this way, and notes whether it will be saved.
func (u *upRun) applied(p vmPlan, w way, bootstrap string) vmPlan {
	p = u.templates.apply(p, w, bootstrap)
	if p.saved {
		u.fresh.Store(p.Name, true)
	}
	return p
}

// chooseWay chooses, and lets a VM that would boot wait for one that is alike and boots already.
func (u *upRun) chooseWay(ctx context.Context, p vmPlan, bootstrap string) (way, func(), error) {
	none := func() {}
	w := u.pick(ctx, p, bootstrap)
	if w.Kind != startCold || u.templates.refusal(p) != "" {
		return w, none, nil
	}
	done, wait := u.queue.lead(alike(p))
	if done != nil {
		return w, done, nil
	}
	if _, err := u.await(ctx, p, "the first "+p.Role+", to be restored from it", wait); err != nil {
		return w, none, err
	}
	return u.pick(ctx, p, bootstrap), none, nil
}

// await waits for what other VMs of this up have to do before p, at most as long as all of them may take to boot one after
// the other, and tells whether it came: where it did not, p goes on without.
func (u *upRun) await(ctx context.Context, p vmPlan, what string, ch <-chan struct{}) (came bool, err error) {
	limit := waitLimit(p) * time.Duration(len(u.names))
	timer := time.NewTimer(limit)
	defer timer.Stop()
	u.during(p.Name, what, limit, func() {
		select {
		case <-ch:
			came = true
		case <-timer.C:
		case <-ctx.Done():
			err = &VMError{Op: "up", VM: p.Name, Phase: "launch", Err: context.Cause(ctx)}
		}
	})
	return came, err
}

// pick is choose with word of what is wrong with a template. One that is damaged is set aside.
func (u *upRun) pick(ctx context.Context, p vmPlan, bootstrap string) way {
	w, err := u.templates.choose(ctx, p, bootstrap)
	if err == nil || ctx.Err() != nil { // what follows ends with ctx
		return w
	}
	u.warn(p.Name, fmt.Sprintf("%v; it boots cold", err), hint(err))
	var bad *warm.BadError
	if errors.As(err, &bad) {
		if err := u.templates.store.SetAside(bad.Key, bad.Problem); err != nil {
			u.warn(p.Name, err.Error(), hint(err))
		}
	}
	return w
}

// boot launches a VM and waits until its guest lets us in.
func (u *upRun) boot(ctx context.Context, p vmPlan) (*guest.Client, error) {
	came, err := u.await(ctx, p, "a core to boot on", u.queue.slots)
	if err != nil {
		return nil, err
	}
	if came {
		defer func() { u.queue.slots <- struct{}{} }()
	}
	proc, err := u.launch(ctx, p)
	if err != nil {
		return nil, err
	}
	return u.awaitReady(ctx, p, proc)
}

// restore launches a VM that goes on from where the template was saved, and wakes it.
func (u *upRun) restore(ctx context.Context, p vmPlan, from *warm.Template) error {
	if _, err := u.launch(ctx, p); err != nil {
		return err
	}
	r, _ := u.session.get(p.Name)
	limit := wakeLimit * time.Duration(1+len(u.names)/runtime.NumCPU())
	wakeCtx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	var wakeErr error
	u.during(p.Name, "the restored guest", limit, func() { r.SSH.Open, wakeErr = u.wake(wakeCtx, p, from) })
	if wakeErr != nil {
		return &VMError{Op: "up", VM: p.Name, Phase: "restore", Err: wakeErr}
	}
	return u.markReady(p, r)
}

// wake tells the restored guest what it must know before anybody else talks to it, and whether it let us in without a key.
func (u *upRun) wake(ctx context.Context, p vmPlan, from *warm.Template) (open bool, err error) {
	client, err := u.dial(ctx, p.Name)
	if err != nil {
		return false, err
	}
	defer client.Close()
	m := from.Manifest
	return client.Open, warm.Wake(ctx, client, p.SSH.User, m.Wake, m.Hostname, p.Name)
}

// dial logs in to a guest that runs. It is quicker than guest.Wait, which is for one that boots.
func (u *upRun) dial(ctx context.Context, vm string) (*guest.Client, error) {
	r, _ := u.session.get(vm)
	to, err := login(r)
	if err != nil {
		return nil, err
	}
	for {
		client, err := guest.Dial(ctx, to)
		if err == nil || as[*guest.HostKeyError](err) || as[*guest.ImpostorError](err) || ctx.Err() != nil {
			return client, err
		}
		select {
		case <-time.After(wakeRetry):
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

// startOver ends a VM that could not be restored and prepares it for a boot. A template whose
// guest did not come back is set aside.
func (u *upRun) startOver(ctx context.Context, p vmPlan, w way, cause error) error {
	if e := (*VMError)(nil); errors.As(cause, &e) && e.Phase == "restore" {
		w.release()
		if err := u.templates.store.SetAside(w.Template, cause.Error()); err != nil {
			u.warn(p.Name, err.Error(), hint(err))
		}
	}
	if _, err := u.takeDown(ctx, p.Name, rollbackLadder, "it could not be restored"); err != nil {
		return err
	}
	return u.prepare(ctx, []string{p.Name})
}

// save keeps a VM that runs as a template. That it cannot be kept is no fault of the VM's; that it does not go on afterwards is.
// Client is a connection to it; nil makes one.
func (u *upRun) save(ctx context.Context, p vmPlan, client *guest.Client, stage warm.Stage, bootstrap string) error {
	began := time.Now()
	saved, why, err := u.trySave(ctx, p, client, stage, bootstrap)
	switch {
	case as[*qemu.PausedError](err):
		return u.fault(p.Name, "save as a template", err)
	case ctx.Err() != nil:
		return &VMError{Op: "up", VM: p.Name, Phase: "save as a template", Err: context.Cause(ctx)}
	case err != nil:
		u.warn(p.Name, fmt.Sprintf("it is not kept as a template: %v", err), hint(err))
		return nil
	}
	e := event.TemplateSaved{VM: p.Name, Template: saved.Key, Stage: string(stage), Start: startRAM, Reason: why, Bytes: saved.Bytes, ElapsedMS: time.Since(began).Milliseconds()}
	if !saved.RAM {
		e.Start = startDisk
	}
	u.events.Emit(e)
	gone, err := u.templates.store.Evict(cmp.Or(u.options.TemplatesMax, templatesMax))
	for _, info := range gone {
		u.events.Emit(event.Cleanup{Path: filepath.Join(u.templates.store.Dir(), info.Key), What: "template", Bytes: info.Bytes})
	}
	if err != nil {
		u.warn("", err.Error(), hint(err))
	}
	return nil
}

// trySave gives the template and why there is no memory in it.
func (u *upRun) trySave(ctx context.Context, p vmPlan, client *guest.Client, stage warm.Stage, bootstrap string) (warm.Info, string, error) {
	r, _ := u.session.get(p.Name)
	t := target(u.ws.Layout, p.Name, r)
	facts, err := u.learn(ctx, p, t)
	if err != nil {
		return warm.Info{}, "", err
	}
	in, why, err := u.templates.ingredients(ctx, p, stage, bootstrap)
	if err != nil || why != "" {
		return warm.Info{}, "", errors.Join(err, notYet(why))
	}
	meta := warm.Meta{Hostname: p.Name}
	if meta.Wake, why, err = u.prepareGuest(ctx, p, client, facts); err != nil {
		return warm.Info{}, "", err
	}
	if err := u.saving(p.Name, true); err != nil {
		return warm.Info{}, "", err
	}
	info, err := u.templates.store.Make(ctx, in, meta, func(dir string) error {
		to := qemu.Image{Disk: filepath.Join(dir, warm.DiskName)}
		if meta.Wake != "" {
			to.RAM, to.State = filepath.Join(dir, warm.RAMName), filepath.Join(dir, warm.StateName)
		}
		return qemu.Save(ctx, t, r.Overlay.Path, to, templateRoom)
	})
	return info, why, errors.Join(err, u.saving(p.Name, false))
}

// notYet is why as an error, nil where there is no reason.
func notYet(why string) error {
	if why == "" {
		return nil
	}
	return errors.New(why)
}

// learn asks the running QEMU what it is, where that is not on record.
func (u *upRun) learn(ctx context.Context, p vmPlan, t qemu.Target) (qemu.Facts, error) {
	binary, err := u.templates.digest(ctx, p.spec.Binary)
	if err != nil {
		return qemu.Facts{}, err
	}
	facts, known := u.templates.facts(p, binary)
	if known {
		return facts, nil
	}
	if facts, err = qemu.AskFacts(ctx, t); err != nil {
		return facts, err
	}
	return facts, u.templates.store.SaveFacts(factsName(p, binary), facts)
}

// prepareGuest makes the guest ready to be saved and goes once through what a restore will do: pages that this needs are in memory then.
// Where its memory cannot be kept, why tells the reason and the guest's disk is written out.
func (u *upRun) prepareGuest(ctx context.Context, p vmPlan, client *guest.Client, facts qemu.Facts) (program, why string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, waitLimit(p), fmt.Errorf("the guest took over %s to get ready", waitLimit(p)))
	defer cancel()
	if client == nil {
		if client, err = u.dial(ctx, p.Name); err != nil {
			return "", "", err
		}
		defer client.Close()
	}
	switch {
	case u.templates.disk && !qemu.WarmSystem:
		why = "memory is kept on Linux only"
	case u.templates.disk:
		why = "CASTRA_WARM=disk"
	default:
		why = facts.Refusal
	}
	if why == "" {
		program, err = u.rehearse(ctx, p, client)
		if err == nil || ctx.Err() != nil {
			return program, "", err
		}
		why = err.Error()
		if client, err = u.dial(ctx, p.Name); err != nil {
			return "", "", err
		}
		defer client.Close()
	}
	return "", why, client.Run(ctx, guest.Command{Line: "sync"})
}

// rehearse puts the waking program in place, over client, and wakes the guest by it over a connection of its own, as a restore will.
func (u *upRun) rehearse(ctx context.Context, p vmPlan, client *guest.Client) (program string, err error) {
	if program, err = warm.Prepare(ctx, client, p.SSH.User); err != nil {
		return "", err
	}
	client.Close() // or its end would be part of every restore
	if client, err = u.dial(ctx, p.Name); err != nil {
		return "", err
	}
	err = warm.Wake(ctx, client, p.SSH.User, program, p.Name, p.Name)
	client.Close()
	if err == nil && p.spec.Accelerator.Emulated() {
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
	}
	return program, err
}
