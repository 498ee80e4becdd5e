package castra

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/warm"
)

// newWarmWorld is a world whose VMs are saved and restored.
func newWarmWorld(t *testing.T, vms ...string) *world {
	t.Helper()
	if goarch != "amd64" && goarch != "arm64" {
		t.Skip("there is no waking program for " + goarch)
	}
	w := newWorld(t, patient, vms...)
	w.warm = ""
	return w
}

// started tells how the last up started a VM: "ram ready", "cold".
func (w *world) started(vm string) string {
	w.Helper()
	how := ""
	for _, e := range w.events.of(vm) {
		if s, ok := e.(event.StartChosen); ok {
			how = strings.TrimSpace(s.Start + " " + s.Stage)
		}
	}
	return how
}

// because is the reason given for how the VM was started.
func (w *world) because(vm string) string {
	why := ""
	for _, e := range w.events.of(vm) {
		if s, ok := e.(event.StartChosen); ok {
			why = s.Reason
		}
	}
	return why
}

// cycle is up and down, and tells how the VM was started.
func (w *world) cycle(vm string) string {
	w.Helper()
	w.events.forget()
	w.up()
	how := w.started(vm)
	w.down()
	return how
}

// templates are the directories of the store, those set aside and left behind among them.
func (w *world) templates() (whole, left []string) {
	w.Helper()
	entries, err := os.ReadDir(filepath.Join(w.home, "templates"))
	if !os.IsNotExist(err) {
		require.NoError(w, err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case len(name) == 32:
			whole = append(whole, filepath.Join(w.home, "templates", name))
		case name[0] == '.':
			left = append(left, name)
		}
	}
	return whole, left
}

func TestWarmStart(t *testing.T) {
	w := newWarmWorld(t, vm("web"))
	w.up()
	require.Equal(t, "cold", w.started("web-0"))
	require.Equal(t, "no VM has been started with this QEMU yet", w.because("web-0"))
	s := w.status("web-0")
	require.Equal(t, "cold", s.Start)
	require.Equal(t, w.because("web-0"), s.StartReason)
	require.Contains(t, w.events.story("web-0"), "vm.template.saved")
	w.down()
	whole, left := w.templates()
	require.Len(t, whole, 1)
	require.Empty(t, left)
	before := digests(t, whole[0])

	w.events.forget()
	w.up()
	require.Equal(t, "ram ready", w.started("web-0"))
	s = w.status("web-0")
	require.Equal(t, []string{"running", "ram", filepath.Base(whole[0])}, []string{s.State, s.Start, s.Template})
	require.NotContains(t, w.events.story("web-0"), "vm.template.saved")
	out, err := w.exec("web", "hostname", "")
	require.NoError(t, err)
	require.Equal(t, "web-0\n", out)
	w.up()
	require.Equal(t, "ram", w.status("web-0").Start, "nothing to do")
	w.down()
	require.Equal(t, before, digests(t, whole[0]), "the template is as it was saved")
	w.cleanSlate()

	guests := qemutest.Guests(t, w.fakes)
	require.Len(t, guests, 2)
	require.False(t, guests[0].Restored)
	require.True(t, guests[1].Restored)
	require.Less(t, guests[1].ClockOff.Abs().Seconds(), 1.0)
	require.Len(t, guests[0].Wakes, 1, "the rehearsal")
	require.Len(t, guests[1].Wakes, 2, "that, and its own")
	require.Equal(t, int32(2048), guests[1].Wakes[1].Bits)
	require.NotEqual(t, guests[0].Wakes[0].Seed, guests[1].Wakes[1].Seed)
}

// digests are of all files of a template but the one that notes its uses.
func digests(t *testing.T, dir string) map[string][32]byte {
	sums := map[string][32]byte{}
	for _, name := range []string{"manifest.json", warm.DiskName, warm.RAMName, warm.StateName} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		sums[name] = sha256.Sum256(data)
	}
	return sums
}

// Replicas boot once, whatever their number, and are restored from the first; each has its own name.
func TestReplicasAreRestoredFromTheFirst(t *testing.T) {
	w := newWarmWorld(t, vm("web", "count = 4"))
	w.up()
	cold, restored := 0, 0
	for i := range 4 {
		switch name := fmt.Sprintf("web-%d", i); w.started(name) {
		case "cold":
			cold++
		case "ram ready":
			restored++
		}
	}
	require.Equal(t, []int{1, 3}, []int{cold, restored})
	names, seeds := map[string]bool{}, map[string]bool{}
	for _, g := range qemutest.Guests(t, w.fakes) {
		require.Equal(t, g.Name, g.Hostname, g.Kept)
		names[g.Hostname] = true
		seeds[string(g.Wakes[len(g.Wakes)-1].Seed)] = true
	}
	require.Len(t, names, 4)
	require.Len(t, seeds, 4, "the same random numbers were fed twice")
	keys := map[string]bool{}
	for _, r := range w.session().VMs {
		keys[r.SSH.HostKey] = true
	}
	require.Len(t, keys, 1, "the host key belongs to the role")
	w.down()
	w.cleanSlate()
}

// What a bootstrap left is in the template, and it does not run again until something of it changes.
func TestBootstrappedTemplate(t *testing.T) {
	w := newWarmWorld(t)
	ran := filepath.Join(w.dir, "ran")
	web := func(lines ...string) {
		w.configure(patient, w.bootstrapped("web", "echo run >>"+ran, lines...))
	}
	web()
	require.Equal(t, "cold", w.cycle("web-0"))
	require.Equal(t, 1, w.tally(ran))
	whole, _ := w.templates()
	require.Len(t, whole, 2, "ready and bootstrapped")

	w.events.forget()
	w.up()
	require.Equal(t, "ram bootstrapped", w.started("web-0"))
	require.Equal(t, "skip: restored from a template", w.planned("web-0"))
	require.Equal(t, "noop", w.status("web-0").Bootstrap)
	w.up()
	require.Equal(t, 1, w.tally(ran))
	w.down()

	web(`env = { STAGE = "two" }`)
	require.Equal(t, "ram ready", w.cycle("web-0"))
	require.Contains(t, w.because("web-0"), "bootstrap changed")
	require.Equal(t, 2, w.tally(ran))
	require.Equal(t, "ram bootstrapped", w.cycle("web-0"))

	web(`mode = "always"`)
	require.Equal(t, "ram ready", w.cycle("web-0"))
	require.Equal(t, "ram ready", w.cycle("web-0"))
	require.Equal(t, 4, w.tally(ran))

	web()
	require.Equal(t, "ram bootstrapped", w.cycle("web-0"), "the first one is still there")
	w.write("bootstrap/web/run.sh", "#!/bin/sh\nexit 1\n")
	require.Error(t, w.open().Up(t.Context(), UpOptions{}))
	w.down()
	whole, _ = w.templates()
	require.Len(t, whole, 3, "a bootstrap that failed is not kept")
}

// A bootstrapped template must outlive the ready one it was made from.
func TestBootstrappedTemplateStandsAlone(t *testing.T) {
	w := newWarmWorld(t)
	w.configure(patient, w.bootstrapped("web", "true", `env = { A = "1" }`))
	w.cycle("web-0")
	w.configure(patient, w.bootstrapped("web", "true", `env = { A = "2" }`))
	require.Equal(t, "ram ready", w.cycle("web-0"))
	whole, _ := w.templates()
	require.Len(t, whole, 3)
	for _, dir := range whole {
		disk, err := os.ReadFile(filepath.Join(dir, warm.DiskName))
		require.NoError(t, err)
		require.NotContains(t, string(disk[:min(len(disk), 4096)]), "templates", "it is a layer on another template")
	}
}

// Each of these is another guest; a port of this computer is not.
func TestWhatMakesAnotherTemplate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world)
		same   bool
		says   string
	}{
		"host port": {func(w *world) { w.configure(patient, vm("web", `port_forwards = [{ guest = 80, host = 0 }]`)) }, true, ""},
		"memory": {func(w *world) {
			w.configure(patient, strings.Replace(vm("web"), "64 MiB", "80 MiB", 1))
		}, false, "memory_mib"},
		"cpus":     {func(w *world) { w.configure(patient, strings.Replace(vm("web"), "cpus = 1", "cpus = 2", 1)) }, false, "cpus"},
		"cpu":      {func(w *world) { w.configure(patient, vm("web", `cpu = "qemu64"`)) }, false, ""},
		"machine":  {func(w *world) { w.configure(patient, vm("web", `machine = "pc"`)) }, false, ""},
		"network":  {func(w *world) { w.configure(patient, vm("web", `network = "isolated"`)) }, false, "devices"},
		"user":     {func(w *world) { w.configure(patient, vm("web", "[vms.ssh]", `user = "dev"`)) }, false, "user"},
		"firmware": {func(w *world) { w.configure(patient, vm("web", `firmware = "uefi"`)) }, false, "firmware"},
		"disk":     {func(w *world) { w.configure(patient, vm("web", `disk = "1 GiB"`)) }, false, "overlay_bytes"},
		"user data": {func(w *world) {
			w.write("user-data", "#cloud-config\npackages: [vim]\n")
			w.configure(patient, vm("web", `user_data = "user-data"`))
		}, false, "user_data"},
		"base image moved": {func(w *world) {
			require.NoError(w, os.Rename(w.base, w.base+".moved"))
			w.configure(patient, strings.Replace(vm("web"), "base.qcow2", "base.qcow2.moved", 1))
		}, false, "base_path"},
		"base image": {func(w *world) { qemutest.WriteImage(w, w.base, 2<<20) }, false, "base_image"},
		"host key": {func(w *world) {
			require.NoError(w, os.Remove(w.layout().HostKey("web")))
		}, false, "host_key"},
		"identity": {func(w *world) { require.NoError(w, os.Remove(w.layout().Identity())) }, false, "authorized_key"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, vm("web", `port_forwards = [{ guest = 80 }]`))
			w.cycle("web-0")
			c.change(w)
			if c.same {
				require.Equal(t, "ram ready", w.cycle("web-0"))
				return
			}
			require.Equal(t, "cold", w.cycle("web-0"))
			require.Contains(t, w.because("web-0"), c.says)
			require.Equal(t, "ram ready", w.cycle("web-0"))
		})
	}
}

func TestWarmOff(t *testing.T) {
	for name, c := range map[string]struct {
		off  func(w *world)
		says string
	}{
		"VM":     {func(w *world) { w.configure(patient, vm("web", "warm = false")) }, "warm = false"},
		"option": {func(w *world) { w.warm = warmOff }, "warm starts are off"},
		"project": {func(w *world) {
			w.write("castra.toml", "version = \"0.2\"\n[project]\nname = \"scratch\"\nwarm = false\n[lifecycle]\n"+patient+"\n"+vm("web"))
		}, "warm = false"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, vm("web"))
			w.cycle("web-0")
			whole, _ := w.templates()
			c.off(w)
			w.events.forget()
			w.up()
			require.Equal(t, []string{"cold", c.says}, []string{w.started("web-0"), w.because("web-0")})
			require.NotContains(t, w.events.story("web-0"), "vm.template.saved")
			args := strings.Join(cmdline(t, w.running()[0]), " ")
			require.NotContains(t, args, "memory-backend")
			w.down()
			after, _ := w.templates()
			require.Equal(t, whole, after)
		})
	}
}

func cmdline(t *testing.T, pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	require.NoError(t, err)
	return strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
}

// With disks alone the bootstrap is spared, and the boot is not.
func TestDiskTemplates(t *testing.T) {
	w := newWarmWorld(t)
	w.warm = warmDisk
	ran := filepath.Join(w.dir, "ran")
	w.configure(patient, w.bootstrapped("web", "echo run >>"+ran))
	require.Equal(t, "cold", w.cycle("web-0"))
	require.Equal(t, "disk bootstrapped", w.cycle("web-0"))
	require.Equal(t, 1, w.tally(ran))
	w.warm = ""
	require.Equal(t, "cold", w.cycle("web-0"), "disks alone and with memory are kept apart")
	require.Equal(t, "ram bootstrapped", w.cycle("web-0"))
}

// The plan is what up runs also when it restores.
func TestPlanOfWarmStart(t *testing.T) {
	w := newWarmWorld(t, vm("web"))
	w.cycle("web-0")
	plan, err := w.open().Plan(t.Context(), UpOptions{})
	require.NoError(t, err)
	require.Equal(t, "ram", plan.VMs[0].Start)
	require.Contains(t, plan.VMs[0].StartReason, "saved ")
	require.Contains(t, plan.VMs[0].Command, "-incoming")
	w.up()
	require.Equal(t, plan.VMs[0].Command[1:], cmdline(t, w.running()[0])[1:])
	var text strings.Builder
	require.NoError(t, plan.write(&text))
	require.Contains(t, text.String(), "start       ram: saved ")
	w.down()
}

func TestUpCancelledWhileRestoring(t *testing.T) {
	w := newWarmWorld(t, vm("web"))
	w.cycle("web-0")
	w.personality("restore-silent")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.events.on(func(e event.Event) {
		if _, ok := e.(event.Launched); ok {
			cancel()
		}
	})
	require.ErrorIs(t, w.open().Up(ctx, UpOptions{}), context.Canceled)
	require.Empty(t, w.running())
	whole, left := w.templates()
	require.Len(t, whole, 1, "a cancelled restore says nothing against the template")
	require.Empty(t, left)
	w.cleanSlate()
}

// Workspaces beside the project's own share its keys, and so the templates.
func TestWorkspacesBesideShareTemplates(t *testing.T) {
	w := newWarmWorld(t, vm("web"))
	for i, want := range []string{"cold", "ram ready"} {
		o := w.options()
		o.StateDir = filepath.Join(filepath.Dir(w.dir), fmt.Sprintf("beside-%d", i))
		w.events.forget()
		p := w.openWith(o)
		require.NoError(t, p.Up(t.Context(), UpOptions{}))
		require.Equal(t, want, w.started("web-0"))
		require.NoError(t, p.Down(t.Context()))
	}
	require.Equal(t, "cold", w.cycle("web-0"), "the project's own workspace has keys of its own")
	files, err := filepath.Glob(filepath.Join(w.home, "keys", "*", "*"))
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, file := range files {
		st, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	}
}
