package castra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemu"
)

// ProjectPlan is what Up would do. Its JSON form is that of `mage plan -json`.
type ProjectPlan struct {
	Workspace   string   `json:"workspace"`
	Root        string   `json:"root"`
	Accelerator string   `json:"accelerator"`
	VMs         []VMPlan `json:"vms"`
}

// VMPlan is one VM's part of a ProjectPlan.
type VMPlan struct {
	Name      string   `json:"name"`
	BaseImage string   `json:"base_image"`
	Overlay   string   `json:"overlay"`
	Seed      string   `json:"seed"`
	Dir       string   `json:"dir"`     // where QEMU runs
	Command   []string `json:"command"` // QEMU's command line; its descriptor 3 is the serial port
	SerialLog string   `json:"serial_log"`
	Bootstrap string   `json:"bootstrap"`
	// Start is "cold", "disk" or "ram", and StartReason why; Template is what the
	// VM would be started from. VMs that would boot and are alike wait for the
	// first of them, and are then restored: the plan shows each as cold.
	Start       string `json:"start"`
	StartReason string `json:"start_reason"`
	Template    string `json:"template,omitempty"`
}

// Plan tells what Up would do with the same options, and touches nothing. An image that Up would
// have to fetch or build first has an empty path.
func (p *Project) Plan(ctx context.Context, o UpOptions) (*ProjectPlan, error) {
	if p.fault != nil {
		return nil, p.fault
	}
	vms, err := selectVMs(p.config.VMs, o.VMs)
	if err != nil {
		return nil, err
	}
	modes, err := bootstrapModes(o.Bootstrap, p.config.VMs)
	if err != nil {
		return nil, err
	}
	s, err := p.site(ctx, "plan", vms, false)
	if err != nil {
		return nil, err
	}
	t, fault := p.openTemplates(true)
	plan := &ProjectPlan{Workspace: p.id, Root: p.root, VMs: []VMPlan{}}
	for _, vm := range vms {
		if plan.Accelerator == "" {
			plan.Accelerator = s.platforms[archOf(vm)].accelerator.Name
		}
		v := planVM(s, vm)
		if err := v.spec.Check(); err != nil {
			return nil, &VMError{Op: "plan", VM: vm.Name, Err: err}
		}
		plan.VMs = append(plan.VMs, t.plan(ctx, v, modes[vm.Name], fault))
	}
	return plan, nil
}

// plan is one VM's part. Fault is why there are no templates, where they should be.
func (t *templates) plan(ctx context.Context, p vmPlan, mode string, fault error) VMPlan {
	b, err := bootstrapOf(t.layout, p, mode)
	digest := ""
	if err == nil {
		digest, err = dueDigest(b)
	}
	w := cold("")
	if err == nil {
		w, err = t.choose(ctx, p, digest)
	}
	if err = errors.Join(fault, err); err != nil {
		w = cold(err.Error())
	}
	p = t.apply(p, w, digest)
	script := b.Script
	if script == "" {
		script = "no script"
	}
	v := VMPlan{
		Name: p.Name, BaseImage: p.base.Path, Overlay: p.spec.Overlay, Seed: p.spec.Seed, Dir: p.spec.Dir,
		SerialLog: p.spec.SerialLog,
		Command:   append([]string{p.spec.Binary}, p.spec.Args()...),
		Bootstrap: fmt.Sprintf("%s: %s", mode, script),
		Start:     w.Kind, StartReason: w.Reason, Template: w.Template,
	}
	if w.bootstrap != "" {
		v.Bootstrap += " (the template has run it)"
	}
	return v
}

// write prints the plan for people; the command line can be pasted into a
// shell.
func (p *ProjectPlan) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "workspace %s\n", p.Root)
	for _, vm := range p.VMs {
		image := vm.BaseImage
		if image == "" {
			image = "(fetched or built first)"
		}
		fmt.Fprintf(&b, "\n%s\n  start       %s: %s\n  base image  %s\n  overlay     %s\n  seed        %s\n  bootstrap   %s\n  command     cd %s && %s",
			vm.Name, vm.Start, vm.StartReason, image, vm.Overlay, vm.Seed, vm.Bootstrap, word(vm.Dir), word(vm.Command[0]))
		for i, arg := range vm.Command[1:] {
			if strings.HasPrefix(arg, "-") && i > 0 {
				b.WriteString(" \\\n   ")
			}
			b.WriteString(" " + word(arg))
		}
		fmt.Fprintf(&b, " \\\n    %d>>%s\n", qemu.SerialFD, word(vm.SerialLog))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./:=,@%+-]+$`)

// word is s as a shell reads it back, quoted where it must be.
func word(s string) string {
	if plain.MatchString(s) {
		return s
	}
	return guest.Quote(s)
}
