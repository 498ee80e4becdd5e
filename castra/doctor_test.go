package castra

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/workspace"
)

// diagnose looks at this computer and at the world's project.
func (w *world) diagnose(o Options) *Diagnosis {
	w.Helper()
	d, err := Diagnose(w.Context(), o)
	require.NoError(w, err)
	return d
}

// find is the check of that name; the zero value where there is none.
func (d *Diagnosis) find(name string) Check {
	for _, c := range d.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{}
}

func TestDoctorOfAFitHost(t *testing.T) {
	w := newWorld(t, patient, vm("web", "count = 2"))
	before := snapshot(t, filepath.Dir(w.dir))
	d := w.diagnose(w.options())
	require.Equal(t, before, snapshot(t, filepath.Dir(w.dir)), "it changes nothing")
	require.True(t, d.OK, d.Checks)
	require.NoError(t, d.err())
	for name, detail := range map[string]string{
		"architecture": runtime.GOOS + "/" + goarch,
		"QEMU":         "7.2.22, " + filepath.Join(w.fakes, "qemu-system-x86_64"),
		"qemu-img":     "7.2.22, " + filepath.Join(w.fakes, "qemu-img"),
		"firmware":     filepath.Join(w.fakes, "bios-256k.bin"),
		"memory":       " available of ",
		"disk":         " free for " + w.layout().Root,
		"state":        w.layout().Root + ", to be made",
		"ssh":          "built in",
		"castra.toml":  "project scratch, VMs web-0, web-1",
	} {
		c := d.find(name)
		require.Contains(t, c.Detail, detail, name)
		if name != "memory" && name != "disk" { // as this computer happens to be
			require.Equal(t, checkOK, c.State, c)
		}
	}
	require.Equal(t, checkWarning, d.find("accelerator").State, "the world asks for tcg")

	w.up()
	d = w.diagnose(w.options())
	require.True(t, d.OK, d.Checks)
	require.Equal(t, w.layout().Root, d.find("state").Detail)
	w.down()
}

// Each trouble is a fault of its own check alone, with what mends it, and Up
// fails as was told.
func TestDoctorFindsWhatUpFailsBy(t *testing.T) {
	for _, c := range []struct {
		name, check string
		spoil       func(w *world, o *Options)
		detail, fix string
	}{
		{"no QEMU", "QEMU", func(w *world, _ *Options) { w.without("qemu-system-x86_64") }, "not found", "qemu-system-x86"},
		{"accelerator not to be had", "accelerator", func(_ *world, o *Options) { o.Accelerator = "hvf" }, "not on linux", "unset CASTRA_ACCEL"},
		{"no such accelerator", "accelerator", func(_ *world, o *Options) { o.Accelerator = "xen" }, "known: kvm, hvf, tcg", "unset CASTRA_ACCEL"},
		{"a file in place of the state", "state", func(w *world, _ *Options) { require.NoError(w, os.WriteFile(w.home, nil, 0o600)) }, "not a directory", "CASTRA_HOME"},
		{"no absolute CASTRA_HOME", "state", func(_ *world, o *Options) { o.Home = "state" }, "not an absolute path", ""},
		{"a fault of castra.toml", "castra.toml", func(w *world, _ *Options) { w.configure(patient, vm("web", "cpu_count = 1")) }, "cpu_count", ""},
		{"faults of castra.toml", "castra.toml", func(w *world, _ *Options) { w.configure(patient, vm("web", "cpu_count = 1", "dsk = 1")) }, "and 1 more", ""},
		{"unreadable castra.toml", "castra.toml", func(w *world, o *Options) { o.Config = w.dir }, "not a regular file", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			o := w.options()
			c.spoil(w, &o)
			d := w.diagnose(o)
			require.False(t, d.OK)
			require.Equal(t, []string{c.check}, d.faults())
			require.Contains(t, d.find(c.check).Detail, c.detail)
			require.Contains(t, d.find(c.check).Fix, c.fix)

			var unfit *UnfitHostError
			require.ErrorAs(t, d.err(), &unfit)
			require.Equal(t, []string{c.check}, unfit.Checks)
			require.ErrorContains(t, unfit, c.check)
			require.NotEmpty(t, unfit.Hint())
			require.Equal(t, exitUnavailable, exitStatus(unfit))

			p, err := Open(o)
			if err == nil {
				err = p.Up(t.Context(), UpOptions{})
			}
			require.Error(t, err, "up fails indeed")
		})
	}
}

// without hides a program.
func (w *world) without(program string) {
	w.Helper()
	require.NoError(w, os.Remove(filepath.Join(w.fakes, program)))
	w.Setenv("PATH", w.fakes)
}

// What only a QEMU that cannot run tells.
func TestDoctorOfBadQEMU(t *testing.T) {
	for name, c := range map[string]struct{ script, check, state, detail string }{
		"too old":     {"echo QEMU emulator version 4.2.1", "QEMU", checkFault, "Castra needs 6.2"},
		"broken":      {"echo no library >&2; exit 127", "QEMU", checkFault, "no library"},
		"not QEMU":    {"echo hello", "QEMU", checkFault, "tells no version"},
		"no firmware": {"echo QEMU emulator version 9.0.0", "firmware", checkFault, "SeaBIOS"},
		"no -L help":  {`[ "$1" = --version ] && echo QEMU emulator version 9.0.0`, "firmware", checkWarning, "-L help"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			path := filepath.Join(w.fakes, "qemu-system-x86_64")
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700))
			d := w.diagnose(w.options())
			found := d.find(c.check)
			require.Equal(t, c.state, found.State, found)
			require.Contains(t, found.Detail, c.detail)
			require.Equal(t, c.state != checkFault, d.OK)
		})
	}
}

// Failure bank 40: the device is judged by opening it, and its cure is the
// group, never a mode for everybody.
func TestDoctorOfAccelerators(t *testing.T) {
	denied := filepath.Join(t.TempDir(), "kvm")
	require.NoError(t, os.WriteFile(denied, nil, 0o600))
	for _, c := range []struct{ want, device, state, detail, fix string }{
		{"", os.DevNull, checkOK, "kvm", ""},
		{"kvm", os.DevNull, checkOK, "kvm", ""},
		{"tcg", os.DevNull, checkWarning, "asked for", "unset CASTRA_ACCEL"},
		{"", "/no/such/kvm", checkWarning, "no such file", "modprobe"},
		{"", denied, checkWarning, "not a device", ""},
		{"kvm", "/no/such/kvm", checkFault, "no such file", "CASTRA_ACCEL"},
	} {
		got := checkAccelerator(c.want, "linux", c.device)
		require.Equal(t, c.state, got.State, got)
		require.Contains(t, got.Detail, c.detail)
		require.Contains(t, got.Fix, c.fix)
		require.NotContains(t, got.Fix, "chmod")
	}
}

func TestDoctorOfRoom(t *testing.T) {
	for _, c := range []struct {
		free  uint64
		force bool
		state string
	}{
		{1 << 30, false, checkOK}, {1<<30 - 1, false, checkWarning}, {1 << 20, false, checkWarning}, {1<<20 - 1, false, checkFault}, {0, true, checkWarning},
	} {
		got := checkRoomFor("disk", "as it is", c.free, 1<<30, 1<<20, c.force, "make room")
		require.Equal(t, c.state, got.State, c)
		require.Equal(t, c.state != checkOK, got.Fix != "")
	}

	w := newWorld(t, patient, strings.Replace(vm("web"), "64 MiB", "4096 GiB", 1))
	d := w.diagnose(w.options())
	require.Equal(t, checkWarning, d.find("memory").State, "CASTRA_FORCE=1 starts it all the same")
	require.Contains(t, d.find("memory").Detail, "4 TiB")
}

// A workspace that another user owns is refused also to root.
func TestDoctorOfAnothersState(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	w := newWorld(t, patient, vm("web"))
	root := w.layout().Root
	require.NoError(t, os.MkdirAll(root, 0o700))
	require.NoError(t, os.Chown(root, 12345, 12345))
	c := w.diagnose(w.options()).find("state")
	require.Equal(t, checkFault, c.State)
	require.Contains(t, c.Detail, "belongs to uid 12345")
	require.Contains(t, c.Fix, "chown")
	require.ErrorAs(t, w.refusedUp(UpOptions{}), new(*workspace.PreflightError))
}

func TestDoctorOfUnwritableState(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	w := newWorld(t, patient, vm("web"))
	require.NoError(t, os.Mkdir(w.home, 0o500))
	c := w.diagnose(w.options()).find("state")
	require.Equal(t, checkFault, c.State)
	require.Contains(t, c.Detail, "cannot be written")
}

func TestDoctorOfTheSmallGuest(t *testing.T) {
	small := "[[vms]]\nname = \"web\"\nimage = \"small\"\nmemory = \"64 MiB\""
	for _, c := range []struct{ name, vm, path, state string }{
		{"can be built", small, "apt-get apt-cache dpkg-deb", checkOK},
		{"not wanted", vm("web"), "apt-get", checkWarning},
		{"wanted", small, "apt-get dpkg-deb", checkFault},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, patient, c.vm)
			for program := range strings.FieldsSeq(c.path) {
				require.NoError(t, os.WriteFile(filepath.Join(w.fakes, program), []byte("#!/bin/sh\n"), 0o700))
			}
			t.Setenv("PATH", w.fakes)
			d := w.diagnose(w.options())
			found := d.find("small guest")
			require.Equal(t, c.state, found.State, found)
			require.Equal(t, c.state != checkFault, d.OK)
			require.Equal(t, c.state != checkOK, strings.Contains(found.Detail, "apt-cache"))
			if c.state == checkFault {
				require.ErrorAs(t, w.refusedUp(UpOptions{}), new(*image.HostError))
			}
		})
	}
}

func TestDoctorWithoutAProject(t *testing.T) {
	w := newWorld(t, patient)
	require.NoError(t, os.Remove(filepath.Join(w.dir, "castra.toml")))
	o := w.options()
	d := w.diagnose(o)
	require.True(t, d.OK, "the host is fit")
	require.Equal(t, checkWarning, d.find("castra.toml").State)
	require.Equal(t, "mage init", d.find("castra.toml").Fix)
	require.Contains(t, d.find("state").Detail, w.home)

	o.Synthetic = true
	require.Equal(t, checkOK, w.diagnose(o).find("castra.toml").State)
}

func TestDoctorHeedsItsContext(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, err := Diagnose(ctx, w.options())
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, d.err(), "no diagnosis is no fault")
}

func TestDiagnosisAsText(t *testing.T) {
	d := &Diagnosis{Checks: []Check{
		{"QEMU", checkOK, "7.2.22, /usr/bin/qemu-system-x86_64", ""},
		{"accelerator", checkWarning, strings.Repeat("several words and ", 12) + "\x1b[31mred", "sudo usermod -aG kvm $USER"},
		{"castra.toml", checkFault, "a\nb", "write " + strings.Repeat("ü", 69)},
	}}
	var b strings.Builder
	require.NoError(t, d.write(&b))
	text := b.String()
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), diagnosisWidth, line)
	}
	require.NotContains(t, text, "\x1b")
	require.True(t, strings.HasPrefix(text, "ok       QEMU: 7.2.22, /usr/bin/qemu-system-x86_64\nwarning  accelerator: several words"), text)
	require.Contains(t, text, "\n         fix: sudo usermod -aG kvm $USER\nfault    castra.toml: a")
	words := strings.Fields(strings.TrimPrefix(text, "ok"))
	require.Equal(t, 12, strings.Count(strings.Join(words, " "), "several words and"), "nothing is lost where lines break")
}

func TestDiagnosisAsJSON(t *testing.T) {
	d := &Diagnosis{OK: true, Checks: []Check{{"ssh", checkOK, "built in", ""}, {"memory", checkWarning, "little", "more"}}}
	out, err := json.Marshal(d)
	require.NoError(t, err)
	require.JSONEq(t, `{"ok":true,"checks":[{"name":"ssh","state":"ok","detail":"built in"},`+
		`{"name":"memory","state":"warning","detail":"little","fix":"more"}]}`, string(out))
	require.Equal(t, fmt.Sprint([]string(nil)), fmt.Sprint(d.faults()))
}
