package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"castra.example/castra/mage/guest/debian"
	"castra.example/castra/mage/setup"
)

// debianRounds are fewer: a boot of a whole Debian takes a minute under emulation.
const debianRounds = 3

const debianToml = `version = "0.2"

[project]
name = "bench-debian"

[[vms]]
name = "vm"
base_image = %q
cpus = 2
memory = "1 GiB"
bootstrap = { handshake_timeout_secs = 240 }
`

// Debian measures starts of a Debian with cloud-init, systemd and OpenSSH.
// It prints medians of three rounds: an up that boots, waits for cloud-init and makes a template, and those from it. It takes eight minutes.
func Debian(ctx context.Context) (err error) {
	if err := setup.Ensure(ctx, os.Stderr, append(setup.Debian(), setup.QEMU...)...); err != nil {
		return err
	}
	home, err := debian.Home()
	if err != nil {
		return err
	}
	guest, err := debian.Ensure(ctx, home, os.Stderr)
	if err != nil {
		return err
	}
	p, err := newProject(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	p.home = filepath.Join(p.tmp, "home") // whose templates are the run's own
	p.env = []string{"CASTRA_WARM=", "CASTRA_TEMPLATES_MAX="}
	if err := os.WriteFile(filepath.Join(p.dir, "castra.toml"), fmt.Appendf(nil, debianToml, guest.Disk), 0o666); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, machine(ctx))
	var first, warm, down []time.Duration
	for i := range debianRounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, debianRounds)
		if _, _, err := p.mage(ctx, "prune", "-templates"); err != nil && i > 0 {
			return err
		}
		for n, into := range []*[]time.Duration{&first, &warm, &warm} {
			took, _, err := p.mage(ctx, "up")
			if err != nil {
				return err
			}
			*into = append(*into, took)
			if took, _, err = p.mage(ctx, "down"); err != nil {
				return err
			}
			if n > 0 {
				down = append(down, took)
			}
		}
	}
	for _, row := range []struct {
		name string
		took []time.Duration
	}{{"up that boots and makes a template", first}, {"up from it", warm}, {"down", down}} {
		fmt.Fprintf(os.Stdout, "%-38s %10s %10s %10s\n", row.name, seconds(median(row.took)), seconds(least(row.took)), seconds(most(row.took)))
	}
	return nil
}
