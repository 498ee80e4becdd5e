package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"castra.example/castra/mage/setup"
)

const (
	// warmLimit bounds the whole run, which should take less than 10 minutes.
	warmLimit = 20 * time.Minute
	// coldRounds are those of four VMs that boot, coldEights those of eight.
	coldRounds, coldEights = 3, 1
	longBootstrap          = 60 // seconds
	small, big             = "512 MiB", "4 GiB"
)

// Warm measures starts from templates against boots and raw QEMU.
// It prints medians of five rounds, all kinds of start in turn on the same
// guest, what replicas take in memory, and where the time of a restore goes.
// Templates are kept in a CASTRA_HOME of the run's own, so the user's stay as
// they are. Linux only. It fails where a VM did not start as it was meant to.
func Warm(ctx context.Context) (err error) {
	if runtime.GOOS != "linux" {
		return errors.New("bench:warm: memory is kept in templates, and measured, on Linux only")
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, warmLimit, fmt.Errorf("bench:warm took over %s", warmLimit))
	defer cancel()
	if err := setup.Ensure(ctx, os.Stderr, setup.QEMU...); err != nil {
		return err
	}
	p, err := newProject(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	guests := filepath.Join(userHome(), "guests")
	p.home = filepath.Join(p.tmp, "home")
	if err := linkTree(guests, filepath.Join(p.home, "guests")); err != nil {
		return err
	}
	w := newWarmRun(p)
	defer func() { err = errors.Join(err, w.end()) }()
	fmt.Fprintln(os.Stdout, machine(ctx))
	if err := w.prepare(ctx); err != nil {
		return err
	}
	if err := w.measure(ctx); err != nil {
		return err
	}
	w.print(os.Stdout)
	if n := len(w.strays); n > 0 {
		fmt.Fprintf(os.Stdout, "\nNOT TO BE QUOTED: %d starts were not what they were meant to be, and the figures hold them\n", n)
	}
	fmt.Fprintf(os.Stdout, "\nthe whole run took %.0f s\n", time.Since(began).Seconds())
	return errors.Join(w.strays...)
}

// warmRun is one run. Each scene is a project with keys, and so templates, of its own.
type warmRun struct {
	p   *project
	raw *raw
	// cold has no templates, first loses them before each round, large has 4 GiB of memory, booted a bootstrap
	// that takes long, and disk templates without memory.
	cold, first, ram, large, booted, disk *scene
	warmFigures
	strays []error
}

// warmFigures have one entry a round.
type warmFigures struct {
	rawUp, coldUp, firstUp, ramUp, noop, ramDown, largeUp, bootedUp, diskUp []time.Duration
	saved                                                                   []time.Duration // what the first up says of it
	cold4, ram4, cold8, ram8                                                []time.Duration
	coldPSS, ramPSS                                                         []int64 // bytes, of eight VMs
	profile                                                                 [][]time.Duration
}

func newWarmRun(p *project) *warmRun {
	w := &warmRun{p: p}
	w.cold = p.scene("cold", small, 0, noTemplates)
	w.first = p.scene("first", small, 0)
	w.first.home = filepath.Join(p.tmp, "home-first")
	w.ram = p.scene("ram", small, 0)
	w.large = p.scene("large", big, 0)
	w.booted = p.scene("booted", small, longBootstrap)
	w.disk = p.scene("disk", small, 1, "CASTRA_WARM=disk")
	return w
}

func (w *warmRun) scenes() []*scene {
	return []*scene{w.cold, w.first, w.ram, w.large, w.booted, w.disk}
}

// prepare makes the templates that are restored later, and brings the images into the page cache.
func (w *warmRun) prepare(ctx context.Context) error {
	for _, s := range w.scenes() {
		if err := s.write(1, 0); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr, "raw QEMU is prepared")
	var err error
	if w.raw, err = w.cold.prepareRaw(ctx); err != nil {
		return err
	}
	if err := linkTree(filepath.Join(w.p.home, "guests"), filepath.Join(w.first.home, "guests")); err != nil {
		return err
	}
	for _, s := range []*scene{w.ram, w.large, w.disk, w.booted} {
		fmt.Fprintf(os.Stderr, "the template of %s is made\n", s.name)
		if err := w.once(ctx, s, 1, cold, (*upped).made); err != nil {
			return err
		}
	}
	return nil
}

// measure runs the rounds: everything in turn, so that all see the same weather on the machine.
func (w *warmRun) measure(ctx context.Context) error {
	for i := range rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, rounds)
		if err := w.round(ctx); err != nil {
			return err
		}
		if i < coldRounds {
			if err := w.once(ctx, w.cold, 4, cold, record(&w.cold4)); err != nil {
				return err
			}
		}
		if i < coldEights {
			if err := w.once(ctx, w.cold, 8, cold, record(&w.cold8), w.pss(ctx, &w.coldPSS)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *warmRun) round(ctx context.Context) error {
	up, _, err := w.raw.round(ctx)
	if err != nil {
		return fmt.Errorf("raw QEMU: %w", err)
	}
	w.rawUp = append(w.rawUp, up)
	if err := w.first.forget(); err != nil {
		return err
	}
	if err := w.single(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		of    *scene
		vms   int
		want  start
		looks []look
	}{
		{w.cold, 1, cold, []look{record(&w.coldUp)}},
		{w.first, 1, cold, []look{record(&w.firstUp), (*upped).made, w.saving}},
		{w.disk, 1, bootstrappedDisk, []look{record(&w.diskUp)}},
		{w.large, 1, fromRAM, []look{record(&w.largeUp)}},
		{w.booted, 1, bootstrappedRAM, []look{record(&w.bootedUp)}},
		{w.ram, 4, fromRAM, []look{record(&w.ram4)}},
		{w.ram, 8, fromRAM, []look{record(&w.ram8), w.pss(ctx, &w.ramPSS)}},
	} {
		if err := w.once(ctx, step.of, step.vms, step.want, step.looks...); err != nil {
			return err
		}
	}
	return nil
}

// saving is a look at what the event says of making the template.
func (w *warmRun) saving(u *upped) error {
	w.saved = append(w.saved, u.saving())
	return nil
}

// single restores one VM, looks at it again and powers it off.
func (w *warmRun) single(ctx context.Context) error {
	u, err := w.ram.up(ctx, 1, fromRAM)
	if err != nil {
		return err
	}
	w.strays = append(w.strays, u.strays...)
	w.ramUp = append(w.ramUp, u.took)
	spans, err := u.spans()
	if err != nil {
		return err
	}
	w.profile = append(w.profile, spans)
	took, _, err := w.ram.mage(ctx, "up")
	if err != nil {
		return err
	}
	w.noop = append(w.noop, took)
	if err := w.ram.write(1, 20); err != nil { // seconds for the guest to power off, as by default
		return err
	}
	took, _, err = w.ram.mage(ctx, "down")
	w.ramDown = append(w.ramDown, took)
	return err
}

// look is what is done while the VMs of an up run.
type look func(*upped) error

// once is up, looks at it, and down.
func (w *warmRun) once(ctx context.Context, s *scene, vms int, want start, looks ...look) error {
	u, err := s.up(ctx, vms, want)
	if err != nil {
		return err
	}
	w.strays = append(w.strays, u.strays...)
	for _, look := range looks {
		if err := look(u); err != nil {
			return err
		}
	}
	_, _, err = s.mage(ctx, "down")
	return err
}

// record is a look at how long it took.
func record(to *[]time.Duration) look {
	return func(u *upped) error {
		*to = append(*to, u.took)
		return nil
	}
}
