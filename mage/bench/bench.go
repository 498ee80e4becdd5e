// Package bench measures Castra against QEMU by hand, on one guest, in one
// run, and prints the figures that the README quotes.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"castra.example/castra/mage/setup"
)

const (
	rounds = 5
	// limit bounds one command of a round.
	limit = 10 * time.Minute
)

// Up measures cold up, down, no-op up and status against raw QEMU.
// It prints medians of five rounds, both sides in turn on the same guest, and
// what importing castra costs a project.
func Up(ctx context.Context) (err error) {
	if err := setup.Ensure(ctx, os.Stderr, setup.QEMU...); err != nil {
		return err
	}
	p, err := newProject(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	p.env = []string{noTemplates} // they are measured by Warm
	fmt.Fprintln(os.Stdout, machine(ctx))
	f, err := p.measure(ctx)
	if err != nil {
		return err
	}
	f.print(os.Stdout)
	return p.importCost(ctx, os.Stdout)
}

// figures of one run; each list has one entry a round.
type figures struct {
	rawUp, up, rawDown, down, noop, status []time.Duration
	noopKiB, statusKiB                     []int64
}

// measure runs the rounds: raw and castra in turn, so that both see the same
// weather on the machine.
func (p *project) measure(ctx context.Context) (*figures, error) {
	r, err := p.prepareRaw(ctx) // also the warm-up: images are in the page cache after it
	if err != nil {
		return nil, err
	}
	f := &figures{}
	for i := range rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, rounds)
		up, down, err := r.round(ctx)
		if err != nil {
			return nil, fmt.Errorf("raw QEMU: %w", err)
		}
		f.rawUp, f.rawDown = append(f.rawUp, up), append(f.rawDown, down)
		if err := p.round(ctx, f); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// round is up, up again, status and down through the compiled magefile.
func (p *project) round(ctx context.Context, f *figures) error {
	for _, step := range []struct {
		verb string
		took *[]time.Duration
		kib  *[]int64
	}{
		{"up", &f.up, nil}, {"up", &f.noop, &f.noopKiB}, {"status", &f.status, &f.statusKiB}, {"down", &f.down, nil},
	} {
		took, kib, err := p.mage(ctx, step.verb)
		if err != nil {
			return err
		}
		*step.took = append(*step.took, took)
		if step.kib != nil {
			*step.kib = append(*step.kib, kib)
		}
	}
	return nil
}

func (f *figures) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-34s %10s %10s %10s\n", "medians of 5 (min, max)", "median", "min", "max")
	for _, row := range []struct {
		name string
		took []time.Duration
	}{
		{"raw QEMU to an SSH command", f.rawUp}, {"cold up to an SSH command", f.up},
		{"guest's own ACPI shutdown", f.rawDown}, {"down", f.down},
		{"up with nothing to do", f.noop}, {"status", f.status},
	} {
		fmt.Fprintf(w, "%-34s %10s %10s %10s\n", row.name, seconds(median(row.took)), seconds(least(row.took)), seconds(most(row.took)))
	}
	fmt.Fprintln(w)
	bar(w, "cold up", median(f.up), median(f.rawUp)*110/100+300*time.Millisecond, "1.10 x raw + 0.3 s")
	bar(w, "down", median(f.down), median(f.rawDown)*110/100+200*time.Millisecond, "1.10 x ACPI + 0.2 s")
	bar(w, "up with nothing to do", median(f.noop), 100*time.Millisecond, "100 ms")
	bar(w, "status", median(f.status), 100*time.Millisecond, "100 ms")
	fmt.Fprintf(w, "memory: up with nothing to do %d MiB, status %d MiB (at most 40 MiB)\n", median(f.noopKiB)>>10, median(f.statusKiB)>>10)
}

func bar(w io.Writer, name string, reached, asked time.Duration, rule string) {
	verdict := "reached"
	if reached > asked {
		verdict = "MISSED"
	}
	fmt.Fprintf(w, "%s: %s of at most %s (%s): %s\n", name, seconds(reached), seconds(asked), rule, verdict)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// machine names what the figures were measured on.
func machine(ctx context.Context) string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	version, err := exec.CommandContext(ctx, "qemu-system-x86_64", "--version").Output()
	if err != nil {
		version = []byte("QEMU of unknown version")
	}
	first, _, _ := strings.Cut(string(version), "\n")
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	kvm := "no KVM (TCG)"
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		kvm = "KVM"
	}
	return fmt.Sprintf("%s, %s cores, Linux %s, %s, %s, %s", model, strconv.Itoa(cores()), strings.TrimSpace(string(kernel)), first, kvm, time.Now().UTC().Format("2006-01-02"))
}

// importCost prints what a user's magefile grows by when it imports castra.
func (p *project) importCost(ctx context.Context, w io.Writer) error {
	with, err := p.cost(ctx, p.dir)
	if err != nil {
		return err
	}
	empty, err := p.empty()
	if err != nil {
		return err
	}
	without, err := p.cost(ctx, empty)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nimporting castra adds to a magefile: %d packages (%d with, %d without), %.1f s to the first build with an empty cache (%.1f with, %.1f without), %.1f MB to the compiled magefile (%.1f with, %.1f without)\n",
		with.packages-without.packages, with.packages, without.packages,
		(with.build - without.build).Seconds(), with.build.Seconds(), without.build.Seconds(),
		float64(with.bytes-without.bytes)/1e6, float64(with.bytes)/1e6, float64(without.bytes)/1e6)
	return nil
}

type cost struct {
	packages int
	build    time.Duration
	bytes    int64
}

// cost compiles the magefile in dir with an empty build cache.
func (p *project) cost(ctx context.Context, dir string) (cost, error) {
	out, err := output(ctx, dir, nil, "go", "list", "-tags=mage", "-deps", ".")
	if err != nil {
		return cost{}, err
	}
	cache := filepath.Join(p.tmp, "gocache-"+filepath.Base(dir))
	binary := filepath.Join(p.tmp, "cost-"+filepath.Base(dir))
	began := time.Now()
	if _, err := output(ctx, dir, []string{"GOCACHE=" + cache, "MAGEFILE_CACHE=" + cache + "-mage"}, "go", "tool", "mage", "-f", "-compile", binary); err != nil {
		return cost{}, err
	}
	took := time.Since(began)
	st, err := os.Stat(binary)
	if err != nil {
		return cost{}, err
	}
	return cost{strings.Count(out, "\n"), took, st.Size()}, nil
}
