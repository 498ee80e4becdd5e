package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// start is how a VM is meant to start, in the words of the events.
type start struct{ kind, stage string }

var (
	cold             = start{"cold", ""}
	fromRAM          = start{"ram", "ready"}
	bootstrappedRAM  = start{"ram", "bootstrapped"}
	bootstrappedDisk = start{"disk", "bootstrapped"}
)

// scene is a project in a directory of its own.
type scene struct {
	*project
	name, memory string
	script       int // seconds that the bootstrap takes; 0 where there is none
}

// scene writes nothing yet. Env is added to that of the magefile, in which nothing of the user's settings is left.
func (p *project) scene(name, memory string, script int, env ...string) *scene {
	own := *p
	own.dir = filepath.Join(p.tmp, name)
	own.env = append([]string{
		"CASTRA_WARM=", "CASTRA_TEMPLATES_MAX=", "CASTRA_WORKSPACE=", "CASTRA_BOOTSTRAP=", "CASTRA_QCOW=", "CASTRA_SYNTHETIC=",
	}, env...)
	return &scene{&own, name, memory, script}
}

// write makes the project one of so many VMs, which have so many seconds to power off.
func (s *scene) write(vms, powerOff int) error {
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return err
	}
	text := fmt.Sprintf(`version = "0.2"

[project]
name = "bench-%s"

[lifecycle]
graceful_shutdown_wait_secs = %d

[[vms]]
name = "vm"
count = %d
image = "small"
cpus = 1
memory = %q
`, s.name, powerOff, vms, s.memory)
	if s.script > 0 {
		text += "\n[vms.bootstrap]\nscript = \"setup.sh\"\n"
		if err := os.WriteFile(filepath.Join(s.dir, "setup.sh"), fmt.Appendf(nil, "#!/bin/sh\nsleep %d\n", s.script), 0o777); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(s.dir, "castra.toml"), []byte(text), 0o666)
}

// forget removes the templates of the scene's CASTRA_HOME, which is below the run's temporary directory.
func (s *scene) forget() error {
	home, err := os.OpenRoot(s.home)
	if err != nil {
		return err
	}
	defer home.Close()
	return home.RemoveAll("templates")
}

// happened is a line of events.jsonl.
type happened struct {
	Time    time.Time
	Type    string
	Command string
	VM      string
	Start   string
	Stage   string
	Reason  string
	Level   string
	Text    string
	MS      int64 `json:"elapsed_ms"`
}

// upped is an up that ended well.
type upped struct {
	scene        string
	began, ended time.Time // the process
	took         time.Duration
	events       []happened
	strays       []error // VMs that did not start as meant
}

// up starts so many VMs from the start of the process to its end.
func (s *scene) up(ctx context.Context, vms int, want start) (*upped, error) {
	if err := s.write(vms, 0); err != nil {
		return nil, err
	}
	u := &upped{scene: s.name, began: time.Now()}
	var err error
	if u.took, _, err = s.mage(ctx, "up"); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	u.ended = u.began.Add(u.took)
	if u.events, err = s.events(); err != nil {
		return nil, err
	}
	chosen := map[string]happened{}
	for _, e := range u.events {
		if e.Type == "vm.start.chosen" {
			chosen[e.VM] = e // the last: one that cannot be restored boots after all
		}
	}
	if len(chosen) != vms {
		u.strays = append(u.strays, fmt.Errorf("%s: %d VMs were started, not %d", s.name, len(chosen), vms))
	}
	for vm, e := range chosen {
		if (start{e.Start, e.Stage}) != want {
			err := fmt.Errorf("%s: %s was started %s %s and not %s %s: %s", s.name, vm, e.Start, e.Stage, want.kind, want.stage, e.Reason)
			u.strays = append(u.strays, errors.Join(err, u.said(vm)))
		}
	}
	return u, nil
}

// events are those of the last up.
func (s *scene) events() ([]happened, error) {
	logs, err := filepath.Glob(filepath.Join(s.home, "projects", "bench-"+s.name+"-*", "logs", "events.jsonl"))
	if err != nil || len(logs) != 1 {
		return nil, fmt.Errorf("%s: %d logs of events found, not one", s.name, len(logs))
	}
	data, err := os.ReadFile(logs[0])
	if err != nil {
		return nil, err
	}
	var all []happened
	for line := range bytes.Lines(data) {
		var e happened
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s: %w", logs[0], err)
		}
		if e.Type == "command.accepted" && e.Command == "up" {
			all = nil
		}
		all = append(all, e)
	}
	return all, nil
}

func (u *upped) find(kind string) (happened, bool) {
	i := slices.IndexFunc(u.events, func(e happened) bool { return e.Type == kind })
	if i < 0 {
		return happened{}, false
	}
	return u.events[i], true
}

// made is nil where a template was made, and else has what up said.
func (u *upped) made() error {
	if _, ok := u.find("vm.template.saved"); ok {
		return nil
	}
	return errors.Join(fmt.Errorf("%s: up made no template", u.scene), u.said("vm-0"))
}

// said is what up warned of about a VM; nil where it did not.
func (u *upped) said(vm string) error {
	var said []error
	for _, e := range u.events {
		if e.Type == "message" && e.VM == vm && e.Level != "info" {
			said = append(said, fmt.Errorf("%s: %s", vm, e.Text))
		}
	}
	return errors.Join(said...)
}

// saving is how long making the template took, by the event that tells of it.
func (u *upped) saving() time.Duration {
	e, _ := u.find("vm.template.saved")
	return time.Duration(e.MS) * time.Millisecond
}

// parts of an up of one restored VM, by the event that ends each.
var parts = []struct{ name, until string }{
	{"process start to accepted command", "command.accepted"},
	{"survey, preflight, overlay, seed", "vm.start.chosen"},
	{"QEMU start, monitor, forwards", "vm.launched"},
	{"device state, login, wake, record", "vm.ready"},
	{"bootstrap skipped, summary", "command.completed"},
	{"end of the process", ""},
}

// spans are how long each part took.
func (u *upped) spans() ([]time.Duration, error) {
	var all []time.Duration
	last := u.began
	for _, part := range parts {
		at := u.ended
		if part.until != "" {
			e, ok := u.find(part.until)
			if !ok {
				return nil, fmt.Errorf("%s: up did not tell of %s", u.scene, part.until)
			}
			at = e.Time
		}
		all = append(all, max(at.Sub(last), 0)) // events have milliseconds only
		last = at
	}
	return all, nil
}
