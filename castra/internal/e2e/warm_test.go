package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// warmProject also follows how its VMs were started.
type warmProject struct {
	*project
	read int64 // bytes of events.jsonl that are of earlier ups
}

// newWarm is newProject for a test that runs beside others.
func newWarm(t *testing.T, vms string) *warmProject {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("memory is kept on Linux only")
	}
	return &warmProject{project: newProject(t, vms)}
}

// beside is another project that has the same templates.
func (p *warmProject) beside(vms string) *warmProject {
	p.t.Helper()
	other := newProject(p.t, vms)
	other.env, other.home = p.env, p.home
	return &warmProject{project: other}
}

// part is a subtest of the project.
func (p *warmProject) part(name string, f func()) {
	whole := p.t
	whole.Run(name, func(t *testing.T) {
		p.t = t
		defer func() {
			p.t = whole
			if t.Failed() { // the next part begins with nothing that runs
				t.Log(p.mage("down"))
			}
		}()
		f()
	})
}

// happening is one line of events.jsonl.
type happening struct {
	Type, VM, Level, Text, Hint, Start, Stage, Template, Reason, Outcome, Mode, Action string
}

// forget makes since tell of what happens from now on.
func (p *warmProject) forget() {
	p.read = 0
	if st, err := os.Stat(p.state("logs", "events.jsonl")); err == nil {
		p.read = st.Size()
	}
}

func (p *warmProject) since(kind string) []happening {
	p.t.Helper()
	f, err := os.Open(p.state("logs", "events.jsonl"))
	require.NoError(p.t, err)
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, p.read, 1<<30))
	require.NoError(p.t, err)
	var found []happening
	for line := range strings.Lines(string(b)) {
		var h happening
		require.NoError(p.t, json.Unmarshal([]byte(line), &h), line)
		if h.Type == kind {
			found = append(found, h)
		}
	}
	return found
}

// up has to succeed. It tells how VMs were started; those that ran are not in it.
func (p *warmProject) up() map[string]happening {
	p.t.Helper()
	p.forget()
	p.must("up")
	return p.starts()
}

func (p *warmProject) starts() map[string]happening {
	p.t.Helper()
	starts := map[string]happening{}
	for _, h := range p.since("vm.start.chosen") {
		said, _ := os.ReadFile(p.state("logs", h.VM+".log.1"))
		require.NotContains(p.t, starts, h.VM, "one start is chosen: %+v\nQEMU said: %s", p.since("vm.start.chosen"), said)
		starts[h.VM] = h
	}
	return starts
}

// warned is what up said to its user.
func (p *warmProject) warned() (warnings []happening) {
	for _, h := range p.since("message") {
		if h.Level == "warning" {
			warnings = append(warnings, h)
		}
	}
	return warnings
}

// requireStart asserts the last up's start of one VM.
func (p *warmProject) requireStart(h happening, start, stage string) {
	p.t.Helper()
	require.Equal(p.t, start, h.Start, "%+v\nwarnings: %+v", h, p.warned())
	require.Equal(p.t, stage, h.Stage, h)
}

// down has to end every guest by its power button.
func (p *warmProject) down() {
	p.t.Helper()
	p.forget()
	p.must("down")
	p.cleanSlate()
	stopped := p.since("vm.stopped")
	require.NotEmpty(p.t, stopped)
	for _, h := range stopped {
		require.Equal(p.t, "graceful", h.Outcome, h)
	}
}

// planned is how plan says that a VM would be started.
type planned struct{ Name, Start, Reason, Template, Image string }

func (p *warmProject) plan(vm string) planned {
	p.t.Helper()
	var all struct {
		VMs []struct {
			Name, Start, Template string
			StartReason           string `json:"start_reason"`
			BaseImage             string `json:"base_image"`
		}
	}
	require.NoError(p.t, json.Unmarshal([]byte(p.must("plan", "-json").stdout), &all))
	for _, v := range all.VMs {
		if v.Name == vm {
			return planned{v.Name, v.Start, v.StartReason, v.Template, v.BaseImage}
		}
	}
	require.Fail(p.t, "not planned", vm)
	return planned{}
}

func (p *warmProject) store(parts ...string) string {
	return filepath.Join(append([]string{p.home, "templates"}, parts...)...)
}

func (p *warmProject) glob(pattern string) []string {
	p.t.Helper()
	found, err := filepath.Glob(p.store(pattern))
	require.NoError(p.t, err)
	return found
}

var templateName = regexp.MustCompile(`/[0-9a-f]{32}$`)

// template is the directory of the only one there is.
func (p *warmProject) template() string {
	p.t.Helper()
	var dirs []string
	for _, dir := range p.glob("*") {
		if templateName.MatchString(dir) {
			dirs = append(dirs, dir)
		}
	}
	require.Len(p.t, dirs, 1)
	return dirs[0]
}

// sums are the digests of all files of the templates, by path.
func (p *warmProject) sums() map[string]string {
	p.t.Helper()
	sums := map[string]string{}
	for _, path := range p.glob("*/*") {
		if !templateName.MatchString(filepath.Dir(path)) {
			continue
		}
		f, err := os.Open(path)
		require.NoError(p.t, err)
		h := sha256.New()
		_, err = io.Copy(h, f)
		require.NoError(p.t, err)
		f.Close()
		sums[path] = fmt.Sprintf("%x", h.Sum(nil))
	}
	return sums
}

// The first up boots and saves, each later one restores; down is graceful;
// with CASTRA_WARM=0 nothing is restored.
func TestWarmUpDown(t *testing.T) {
	t.Parallel()
	p := newWarm(t, oneVM)
	p.requireStart(p.up()["vm-0"], "cold", "")
	saved := p.since("vm.template.saved")
	require.Len(t, saved, 1)
	require.Equal(t, "ram", saved[0].Start, saved[0].Reason)
	require.Equal(t, filepath.Base(p.template()), saved[0].Template)
	require.Empty(t, p.up(), "it runs")
	p.down()
	before := p.sums()

	for range 2 {
		p.requireStart(p.up()["vm-0"], "ram", "ready")
		require.Empty(t, p.warned())
		require.Empty(t, p.since("vm.template.saved"))
		require.Equal(t, "vm-0\n", p.must("exec", "vm", "hostname").stdout)
		require.Empty(t, p.up(), "it runs")
		began := time.Now()
		p.eventually("the guest has run for a while", func() bool { return time.Since(began) > 3*time.Second })
		require.Equal(t, before, p.sums(), "what a guest does is not done to the template")
		p.down()
	}
	noSecrets(t, p.store())

	p.env = append(p.env, "CASTRA_WARM=0")
	p.requireStart(p.up()["vm-0"], "cold", "")
	require.Empty(t, p.since("vm.template.saved"))
	p.down()
}

// flip changes one byte in the middle of a file.
func flip(t *testing.T, path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	st, err := f.Stat()
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, st.Size()/2)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 1}, st.Size()/2)
	require.NoError(t, err)
}

// A damaged template is set aside with one warning, and the VM boots; that
// boot makes a new one. One that others may write to is refused.
func TestWarmDamage(t *testing.T) {
	t.Parallel()
	p := newWarm(t, oneVM)
	p.requireStart(p.up()["vm-0"], "cold", "")
	p.down()
	for _, c := range []struct {
		name, says string
		damage     func(dir string) error
	}{
		{"memory cut short", "ram has", func(dir string) error { return os.Truncate(dir+"/ram", 100<<20) }},
		{"memory altered", "ram is not", func(dir string) error { flip(t, dir+"/ram"); return nil }},
		{"state altered", "state is not", func(dir string) error { flip(t, dir+"/state"); return nil }},
		{"state missing", "state is missing", func(dir string) error { return os.Remove(dir + "/state") }},
		{"disk missing", "disk.qcow2 is missing", func(dir string) error { return os.Remove(dir + "/disk.qcow2") }},
		{"manifest garbage", "manifest.json", func(dir string) error { return os.WriteFile(dir+"/manifest.json", []byte("{\x00garbage"), 0o600) }},
	} {
		p.part(c.name, func() {
			key := filepath.Base(p.template())
			require.NoError(p.t, c.damage(p.store(key)))
			before := p.glob(".bad-*")
			p.requireStart(p.up()["vm-0"], "cold", "")
			warned := p.warned()
			require.Len(p.t, warned, 1)
			require.Contains(p.t, warned[0].Text, c.says)
			require.NotEmpty(p.t, warned[0].Hint)
			require.Equal(p.t, "vm-0\n", p.must("exec", "vm", "hostname").stdout)

			aside := p.glob(".bad-" + key + "-*")
			require.NotEmpty(p.t, aside)
			require.LessOrEqual(p.t, len(aside), 2)
			require.NotEqual(p.t, before, aside)
			why, err := os.ReadFile(filepath.Join(aside[len(aside)-1], "why.txt"))
			require.NoError(p.t, err)
			require.Contains(p.t, string(why), c.says)
			require.Len(p.t, p.since("vm.template.saved"), 1)
			p.down()
			require.Equal(p.t, "ram", p.plan("vm-0").Start)
		})
	}
	p.part("refused", p.refuses)
	p.requireStart(p.up()["vm-0"], "ram", "ready")
	require.Empty(t, p.warned())
}

// refuses asserts that what another user could have changed is not used, and not lost.
func (p *warmProject) refuses() {
	dir := p.template()
	before := p.sums()
	refused := func(fix string) {
		p.requireStart(p.up()["vm-0"], "cold", "")
		warned := p.warned()
		require.NotEmpty(p.t, warned)
		require.Contains(p.t, warned[0].Text, dir)
		require.Contains(p.t, warned[0].Hint, fix)
		require.Equal(p.t, "vm-0\n", p.must("exec", "vm", "hostname").stdout)
		p.down()
		require.Equal(p.t, before, p.sums())
	}
	require.NoError(p.t, os.Chmod(dir, 0o755))
	refused("chmod 700 " + dir)
	require.NoError(p.t, os.Chmod(dir, 0o700))

	if os.Geteuid() == 0 {
		require.NoError(p.t, os.Chown(dir, 12345, -1))
		refused("mv " + dir)
		require.NoError(p.t, os.Chown(dir, 0, -1))
		return
	}
	require.NoError(p.t, os.Chmod(p.store(), 0o500)) // nothing can be noted there
	defer func() { require.NoError(p.t, os.Chmod(p.store(), 0o700)) }()
	p.requireStart(p.up()["vm-0"], "ram", "ready")
	p.down()
}

const scripted = `
[vms.bootstrap]
script = "run.sh"
`

// Without memory a VM boots from the disk of the template, and what bootstrap
// did is there.
func TestWarmDisk(t *testing.T) {
	t.Parallel()
	p := newWarm(t, oneVM+scripted)
	p.env = append(p.env, "CASTRA_WARM=disk")
	p.write("run.sh", "#!/bin/sh\nset -e\necho run >> /root/runs\n")
	p.requireStart(p.up()["vm-0"], "cold", "")
	for _, h := range p.since("vm.template.saved") {
		require.Equal(t, "disk", h.Start, h)
	}
	require.Empty(t, p.glob("*/ram"))
	p.down()

	p.requireStart(p.up()["vm-0"], "disk", "bootstrapped")
	require.Equal(t, "skip", p.since("bootstrap.planned")[0].Action)
	require.Equal(t, "noop", p.status()["vm-0"].Bootstrap)
	require.Equal(t, "run\nvm-0\n", p.must("exec", "vm", "cat /root/runs; hostname").stdout)
	require.Empty(t, p.warned())
	p.down()
}
