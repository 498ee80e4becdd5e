package castra

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strconv"
	"sync"
	"time"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/warm"
	"castra.example/castra/castra/internal/workspace"
)

// How a VM is started, as it stands in records, events and reports.
const (
	startCold = "cold" // the guest boots from its base image
	startDisk = "disk" // it boots from the disk of a template
	startRAM  = "ram"  // it goes on from where a template was saved
)

// templates is what Up and Plan know of warm starts.
type templates struct {
	store *warm.Store // nil where there are none at all
	off   string      // and why
	disk  bool        // no memory is kept
	// layout is of the workspace whose VMs these are.
	layout workspace.Layout
	// look only: nothing is made, written or locked.
	look    bool
	digests sync.Map // by path
}

// openTemplates never fails: without templates, VMs boot cold. What keeps them
// from being used, where the user did not ask for that, is given as a fault.
func (p *Project) openTemplates(look bool) (*templates, error) {
	t := &templates{layout: p.layout(), look: look, disk: p.options.Warm == warmDisk || !qemu.WarmSystem}
	switch {
	case p.options.Warm == warmOff:
		t.off = "warm starts are off"
	case p.config != nil && !p.config.Warm:
		t.off = "warm = false"
	case p.home == "":
		t.off = "there is no home directory to keep templates in"
	}
	if t.off != "" {
		return t, nil
	}
	var err error
	if t.store, err = warm.Open(p.home); err != nil {
		t.store, t.off = nil, "templates cannot be used"
	} else if !look {
		err = t.store.Sweep()
	}
	return t, err
}

// refusal tells why this VM neither starts from templates nor is saved as one; "" where it may.
func (t *templates) refusal(p vmPlan) string {
	switch {
	case t.store == nil:
		return t.off
	case !p.Warm:
		return "warm = false"
	case p.arch != goarch:
		return "templates are of guests of this computer's architecture"
	case p.SSH.Host != "":
		return "its SSH is not reached through a forward of ours"
	default:
		return ""
	}
}

// way is how one VM is started.
type way struct {
	workspace.Start
	template  *warm.Template // nil of a cold start
	bootstrap string         // digest of what the template has run; "" where it has not
	barred    bool           // a template stands in the way that is not to be used, and none can be made
}

func cold(reason string) way { return way{Start: workspace.Start{Kind: startCold, Reason: reason}} }

func (w way) release() {
	if w.template != nil {
		w.template.Release()
	}
}

// choose finds the template that spares the most: one that has run this
// bootstrap (digest; "" where none is due), else one that was ready for it. A
// template that is there and cannot be used is a fault beside a cold way.
func (t *templates) choose(ctx context.Context, p vmPlan, bootstrap string) (way, error) {
	if why := t.refusal(p); why != "" {
		return cold(why), nil
	}
	stages := []warm.Stage{warm.Ready}
	if bootstrap != "" {
		stages = []warm.Stage{warm.Bootstrapped, warm.Ready}
	}
	var missed []string
	for _, stage := range stages {
		in, why, err := t.ingredients(ctx, p, stage, bootstrap)
		if err != nil || why != "" {
			return cold(why), err
		}
		found, err := t.find(ctx, in)
		var miss *warm.MissError
		switch {
		case errors.As(err, &miss):
			missed = append(missed, miss.Reason)
		case err != nil:
			w := cold("its template cannot be used")
			w.barred = !as[*warm.BadError](err)
			return w, err
		default:
			return t.from(found, in, missed), nil
		}
	}
	return cold(missed[len(missed)-1]), nil
}

func (t *templates) find(ctx context.Context, in warm.Ingredients) (*warm.Template, error) {
	if t.look {
		return t.store.Peek(ctx, in)
	}
	return t.store.Find(ctx, in)
}

// from tells how the template is used. Missed is why there is none of the bootstrapped stage.
func (t *templates) from(found *warm.Template, in warm.Ingredients, missed []string) way {
	w := way{template: found, Start: workspace.Start{Kind: startDisk, Stage: string(in.Stage), Template: found.Key}}
	if found.HasRAM() {
		w.Kind = startRAM
	}
	w.Reason = "saved " + found.Manifest.Made.Local().Format(time.DateTime)
	if in.Stage == warm.Bootstrapped {
		w.bootstrap = in.Bootstrap
	} else if len(missed) > 0 {
		w.Reason += "; bootstrap: " + missed[0]
	}
	return w
}

// ingredients are what a template of this VM is filed under. Why is set where they
// cannot be known yet: what QEMU makes of its options is asked of one that runs.
func (t *templates) ingredients(ctx context.Context, p vmPlan, stage warm.Stage, bootstrap string) (in warm.Ingredients, why string, err error) {
	binary, err := t.digest(ctx, p.spec.Binary)
	if err != nil {
		return in, "", err
	}
	facts, known := t.facts(p, binary)
	if !known { // told before the images are read: they are long, and are read while the guest boots
		return in, "no VM has been started with this QEMU yet", nil
	}
	if in, why, err = t.outline(ctx, p); err != nil || why != "" {
		return in, why, err
	}
	in.Machine, in.CPU, in.QEMU = facts.Machine, facts.CPU, facts.Version+" "+binary
	in.Stage = stage
	if stage == warm.Bootstrapped {
		in.Owner, in.Bootstrap, in.RemoteDir = p.Name, bootstrap, p.Bootstrap.RemoteDir
	}
	return in, "", nil
}

// alike is the same for VMs that will be restored from one ready template, as far as can be told without reading their images.
func alike(p vmPlan) string {
	return fmt.Sprintf("%q", append(p.spec.Shape(), p.Role, p.base.Path, p.spec.Kernel, p.spec.Initrd, p.SSH.User, p.identity, strconv.FormatInt(p.size, 10), digestOf(p.userData)))
}

// outline is the ingredients of the ready stage but for what a running QEMU has to tell.
func (t *templates) outline(ctx context.Context, p vmPlan) (in warm.Ingredients, why string, err error) {
	in = warm.Ingredients{
		Stage: warm.Ready, Owner: p.Role, Append: p.spec.Append, BasePath: p.base.Path, OverlayFormat: "qcow2", Arch: p.arch,
		Accelerator: p.spec.Accelerator.Name, HostCPU: host.CPU(), Firmware: p.firmware,
		CPUs: p.CPUs, MemoryMiB: p.MemoryMiB, Devices: p.spec.Shape(), User: p.SSH.User, OverlayBytes: p.size, UserData: digestOf(p.userData),
	}
	if t.disk {
		in.Devices = append(in.Devices, "disk only")
	}
	for _, file := range []struct {
		path   string
		digest *string
	}{{p.base.Path, &in.BaseImage}, {p.spec.Kernel, &in.Kernel}, {p.spec.Initrd, &in.Initrd}, {p.spec.UEFI.Code, &in.FirmwareCode}} {
		if file.path == "" {
			continue
		}
		if *file.digest, err = t.digest(ctx, file.path); err != nil {
			return in, "", err
		}
	}
	for _, key := range []struct {
		path   string
		public *string
	}{{p.identity, &in.AuthorizedKey}, {t.layout.HostKey(p.Role), &in.HostKey}} {
		k, err := readKey(key.path)
		if errors.Is(err, fs.ErrNotExist) {
			return in, "the workspace has no keys yet", nil
		}
		if err != nil {
			return in, "", err
		}
		*key.public = k.Public
	}
	return in, "", nil
}

// digest of a file of this computer, reckoned once for all the VMs that use it.
func (t *templates) digest(ctx context.Context, path string) (string, error) {
	if sum, known := t.digests.Load(path); known {
		return sum.(string), nil
	}
	reckon := t.store.Digest
	if t.look {
		reckon = t.store.Sum
	}
	sum, err := reckon(ctx, path)
	if err == nil {
		t.digests.Store(path, sum)
	}
	return sum, err
}

// facts are what is on record of the QEMU that p would run.
func (t *templates) facts(p vmPlan, binary string) (facts qemu.Facts, known bool) {
	known = t.store.LoadFacts(factsName(p, binary), &facts)
	return facts, known
}

// factsName covers all that what QEMU makes of its options depends on.
func factsName(p vmPlan, binary string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s\n%s", binary, p.spec.Machine, p.spec.CPU, p.spec.Accelerator.Name, host.CPU()))
	return hex.EncodeToString(sum[:16])
}

// apply makes the plan that of a VM started this way. It is pure. Where the VM is to be
// saved in turn, its memory must be one that can be copied.
func (t *templates) apply(p vmPlan, w way, bootstrap string) vmPlan {
	p.start, p.restored, p.saved = w.Start, w.bootstrap, t.saves(p, w, bootstrap)
	switch {
	case w.template == nil:
	case p.saved: // a template that is made of it must not depend on this one, which may be evicted first
		p.copied = w.template.Disk()
	default:
		p.backing = qemu.Backing{Path: w.template.Disk(), Format: "qcow2"}
	}
	p.spec.RAM.Shared = p.saved && !t.disk
	if w.Kind == startRAM {
		p.spec.State = w.template.State()
		if p.saved {
			p.memory = w.template.RAM()
		} else {
			p.spec.RAM.File = w.template.RAM()
		}
	}
	return p
}

// saves tells that a VM started this way will be saved: when it is ready, after its bootstrap, or both.
func (t *templates) saves(p vmPlan, w way, bootstrap string) bool {
	switch {
	case t.refusal(p) != "", w.barred, w.Kind == startDisk:
		return false
	case w.Kind == startCold:
		return true
	default:
		return bootstrap != "" && w.bootstrap == ""
	}
}

// bootSlots is how many guests may boot at once. Emulated CPUs that share a core only make each other late;
// a restored guest has next to nothing to do.
func bootSlots(emulated bool, vms int) int {
	if emulated {
		return runtime.NumCPU()
	}
	return max(vms, 1)
}
