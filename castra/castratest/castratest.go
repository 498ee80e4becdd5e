package castratest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"castra.example/castra/castra"
	"castra.example/castra/castra/internal/report"
)

// downLimit bounds the taking down when the test has ended. The steps of a
// shutdown are shortened to fit.
const downLimit = time.Minute

// Options say what Start starts. The zero value is all VMs of the castra.toml
// that is in the directory of the test or above it, with what the environment
// tells the targets (CASTRA_HOME, CASTRA_ACCEL ...).
type Options struct {
	castra.Options
	castra.UpOptions
	// Required makes it a failure where VMs cannot run, not a skipped test.
	Required bool
	// Quiet keeps events out of the test's log.
	Quiet bool
}

// VMs are those of one Start. Its methods end the test when they fail.
type VMs struct {
	*castra.Session
	t testing.TB
}

// Start brings VMs up for a test, and takes them down when the test and its
// subtests end, also when they fail or panic. When the test failed, the last
// lines of each guest's serial port go to its log. The test is skipped under
// -short, and where this computer cannot run VMs.
func Start(t testing.TB, o Options) *VMs {
	t.Helper()
	if testing.Short() && !o.Required {
		t.Skip("castratest: VMs are not started under -short")
	}
	if o.Options == (castra.Options{}) {
		o.Options = castra.Environment()
	}
	if o.StateDir == "" {
		o.StateDir = filepath.Join(t.TempDir(), "workspace")
	}
	p, err := castra.Open(o.Options)
	if err != nil {
		t.Fatalf("castratest: %v", err)
	}
	if !o.Quiet {
		p.Reporter = report.NewText(t.Output(), report.TextOptions{})
	}
	vms := &VMs{t: t}
	t.Cleanup(func() { // before Up: what it started and could not end is ended then
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), downLimit)
		defer cancel()
		vms.explain()
		if err := p.Down(ctx); err != nil {
			t.Errorf("castratest: %v", err)
		}
	})
	if err := p.Up(t.Context(), o.UpOptions); err != nil {
		if castra.Unfit(err) && !o.Required {
			t.Skipf("castratest: VMs cannot run here: %v", err)
		}
		t.Fatalf("castratest: %v", err)
	}
	if vms.Session, err = p.Session(t.Context()); err != nil {
		t.Fatalf("castratest: %v", err)
	}
	return vms
}

// explain logs what the guests of a failed test printed last.
func (v *VMs) explain() {
	if !v.t.Failed() || v.Session == nil {
		return
	}
	for _, vm := range v.VMs() {
		lines, err := v.SerialTail(vm)
		if err != nil {
			v.t.Logf("%s: serial log: %v", vm, err)
			continue
		}
		v.t.Logf("%s: the serial port said last:", vm)
		for _, line := range lines {
			v.t.Log("  " + report.Sanitize(line))
		}
	}
}

// Address is where the guest's TCP port is reached: "127.0.0.1:40123".
func (v *VMs) Address(vm string, guestPort int) string {
	v.t.Helper()
	addr, err := v.Session.Address(vm, guestPort)
	if err != nil {
		v.t.Fatalf("castratest: %v", err)
	}
	return addr
}

// Run runs a shell command in a guest and gives what it printed on stdout,
// without the last line end. A command that fails ends the test; use Output or
// Exec where that is what is tested.
func (v *VMs) Run(vm, line string) string {
	v.t.Helper()
	out, err := v.Output(v.t.Context(), vm, line)
	if err != nil {
		v.t.Fatalf("castratest: %s: %s: %v", vm, line, err)
	}
	return out
}

// Copy copies between this computer and a guest; one of the two is "vm:path".
func (v *VMs) Copy(src, dst string) {
	v.t.Helper()
	if err := v.Session.Copy(v.t.Context(), src, dst); err != nil {
		v.t.Fatalf("castratest: %v", err)
	}
}
