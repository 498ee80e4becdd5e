package qemutest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// become makes the world one of QEMUs for an architecture.
func (w *world) become(t *testing.T, target string) {
	t.Helper()
	if filepath.Dir(w.qemu) == filepath.Dir(w.img) && len(w.env) > 0 { // the fakes
		w.qemu = filepath.Join(filepath.Dir(w.img), "qemu-system-"+target)
		return
	}
	path, err := exec.LookPath("qemu-system-" + target)
	if err != nil {
		t.Skip("qemu-system-" + target + " is not installed")
	}
	w.qemu = path
}

// board is the machine that castra's guests of this architecture have, and a CPU for it.
func (t target) board() (machine, cpu string) {
	if t.goarch == "arm64" {
		return "virt,gic-version=2", "max,pauth-impdef=on"
	}
	return "q35,sata=off,smbus=off", "max"
}

// machineArgs is args with the machine of an architecture, and more of its properties.
func (w *world) machineArgs(name string, target target, properties string) []string {
	machine, cpu := target.board()
	return append(withMachine(w.args(name), machine+properties), "-cpu", cpu)
}

func withMachine(args []string, machine string) []string {
	args = slices.Clone(args)
	args[slices.Index(args, "-machine")+1] = machine
	return args
}

// flashFile makes one part of the firmware, and gives the -blockdev for it.
func (w *world) flashFile(t *testing.T, node string, size int64) []string {
	t.Helper()
	require.NoError(t, os.WriteFile(w.path(node), []byte(node), 0o600))
	require.NoError(t, os.Truncate(w.path(node), size))
	return flashArgs(node, w.path(node))
}

func flashArgs(node, path string) []string {
	return []string{"-blockdev", fmt.Sprintf(`{"node-name":%q,"driver":"raw","read-only":%t,"file":{"driver":"file","filename":%q}}`, node, node == "code", path)}
}

func (t target) flashSize() int64 {
	if t.goarch == "arm64" {
		return 64 << 20
	}
	return 64 << 10
}

// refusals are command lines of one architecture, and what QEMU says of them.
var refusals = map[string]map[string][]string{
	"aarch64": {
		"unsupported machine type\nUse -machine help to list supported machines":                        {"-machine", "q35"},
		"No machine specified, and there is no default\nUse -machine help to list supported machines":   {},
		"Property 'virt-7.2-machine.sata' not found":                                                    {"-machine", "virt,sata=off"},
		"Parameter 'its' expects 'on' or 'off'":                                                         {"-machine", "virt,its=maybe"},
		"Invalid gic-version value\nValid values are 3, 2, host, max.":                                  {"-machine", "virt,gic-version=9"},
		"gic-version=host requires KVM":                                                                 {"-machine", "virt,gic-version=host"},
		"Number of SMP CPUs requested (9) exceeds max CPUs supported by machine 'mach-virt' (8)":        {"-machine", "virt", "-smp", "9"},
		"unable to find CPU model 'qemu64'":                                                             {"-machine", "virt", "-cpu", "qemu64"},
		"Expected key=value format, found +sve.":                                                        {"-machine", "virt", "-cpu", "max,+sve"},
		"can't apply global max-arm-cpu.nope=on: Property 'max-arm-cpu.nope' not found":                 {"-machine", "virt", "-cpu", "max,nope=on"},
		"can't apply global max-arm-cpu.pauth-impdef=x: Parameter 'pauth-impdef' expects 'on' or 'off'": {"-machine", "virt", "-cpu", "max,pauth-impdef=x"},
		"can't apply global cortex-a72-arm-cpu.sve=on: Property 'cortex-a72-arm-cpu.sve' not found":     {"-machine", "virt", "-cpu", "cortex-a72,sve=on"},
		`-device {"driver":"vmgenid","guid":"auto"}: 'vmgenid' is not a valid device model name`:        {"-machine", "virt", "-device", `{"driver":"vmgenid","guid":"auto"}`},
		"Property 'cfi.pflash01.drive' can't find value 'code'":                                         {"-machine", "virt,pflash0=code"},
	},
	"x86_64": {
		"unsupported machine type\nUse -machine help to list supported machines": {"-machine", "virt"},
		"Property 'pc-q35-7.2-machine.gic-version' not found":                    {"-machine", "q35,gic-version=2"},
		"unable to find CPU model 'cortex-a72'":                                  {"-machine", "q35", "-cpu", "cortex-a72"},
		"CPU model 'host' requires KVM or HVF":                                   {"-machine", "q35", "-cpu", "host"},
		"-cpu option cannot be empty":                                            {"-machine", "q35", "-cpu", ""},
		"Property 'cfi.pflash01.drive' can't find value 'code'":                  {"-machine", "q35,pflash0=code"},
		"Property 'pc-q35-7.2-machine.pflash2' not found":                        {"-machine", "q35,pflash2=code"},
	},
}

var anyVersion = regexp.MustCompile(`(pc-q35|virt)-\d+\.\d+-`)

// targetConformance is for QEMU of either architecture.
var targetConformance = map[string]func(*testing.T, *world, target){
	"refused command lines": func(t *testing.T, w *world, target target) {
		for says, args := range refusals[target.name] {
			code, stderr := w.start(t, append([]string{"-display", "none", "-nodefaults", "-accel", "tcg", "-m", "64M"}, args...)...).result(t)
			require.Equal(t, 1, code, says)
			require.Equal(t, "qemu-system-"+target.name+": "+says+"\n", anyVersion.ReplaceAllString(stderr, "$1-7.2-"))
		}
	},
	"an accelerator of another architecture": func(t *testing.T, w *world, target target) {
		if target.goarch == runtime.GOARCH || runtime.GOOS != "linux" {
			t.Skip("this computer's own")
		}
		code, stderr := w.start(t, "-display", "none", "-nodefaults", "-machine", "none", "-accel", "kvm").result(t)
		require.Equal(t, 1, code)
		require.Equal(t, "qemu-system-"+target.name+": -accel kvm: invalid accelerator kvm\n", stderr)
	},
	"a machine as castra shapes it": func(t *testing.T, w *world, target target) {
		w.launch(t, "a", w.machineArgs("a", target, "")...)
		c := w.dial(t, "a")
		var kind string
		require.NoError(t, c.Execute(t.Context(), "qom-get", map[string]any{"path": "/machine", "property": "type"}, &kind))
		require.Regexp(t, `^(pc-q35|virt)-\d+\.\d+-machine$`, kind)
		var cpus []struct {
			Path   string `json:"qom-path"`
			Target string
		}
		require.NoError(t, c.Execute(t.Context(), "query-cpus-fast", nil, &cpus))
		require.Equal(t, target.name, cpus[0].Target)
		require.NoError(t, c.Execute(t.Context(), "qom-get", map[string]any{"path": cpus[0].Path, "property": "type"}, &kind))
		require.Equal(t, "max"+target.class, kind)
	},
	"more CPUs than the older interrupt controller serves": func(t *testing.T, w *world, target target) {
		if target.goarch != "arm64" {
			t.Skip("x86 has no such limit")
		}
		w.launch(t, "a", append(withMachine(w.args("a"), "virt,gic-version=3"), "-S", "-smp", "9", "-cpu", "max")...)
	},
	"flash that is missing or of another size": func(t *testing.T, w *world, target target) {
		size, flash := target.flashSize(), ",pflash0=code,pflash1=vars"
		vars := w.flashFile(t, "vars", size)
		missing := flashArgs("code", "/nonexistent/code")
		cases := map[string][]string{"-blockdev " + missing[1] + ": Could not open '/nonexistent/code': No such file or directory": missing}
		if target.goarch == "arm64" {
			cases["device requires 67108864 bytes, block backend provides 2097152 bytes"] = w.flashFile(t, "code", 2<<20)
		} else {
			cases["system firmware block device  has invalid size 1024\nqemu-system-x86_64: info: its size must be a non-zero multiple of 0x1000"] = w.flashFile(t, "code", 1000)
		}
		for says, code := range cases {
			status, stderr := w.start(t, append(append(w.machineArgs("a", target, flash), code...), vars...)...).result(t)
			require.Equal(t, 1, status)
			require.Equal(t, "qemu-system-"+target.name+": "+says+"\n", stderr)
			require.NoFileExists(t, w.path("a.pid"))
		}
		if target.goarch != "arm64" {
			status, stderr := w.start(t, append(w.machineArgs("a", target, ",pflash1=vars"), vars...)...).result(t)
			require.Equal(t, 1, status)
			require.Equal(t, "qemu-system-x86_64: pflash1 requires pflash0\n", stderr)
			large := w.flashFile(t, "code", 8<<20)
			status, stderr = w.start(t, append(append(w.machineArgs("a", target, flash), large...), vars...)...).result(t)
			require.Equal(t, 1, status)
			require.Equal(t, "qemu-system-x86_64: combined size of system firmware exceeds 8388608 bytes\n", stderr)
		}
	},
	"flash is not locked": func(t *testing.T, w *world, target target) {
		flash := append(w.flashFile(t, "code", target.flashSize()), w.flashFile(t, "vars", target.flashSize())...)
		for _, name := range []string{"a", "b"} {
			w.launch(t, name, append(append(w.machineArgs(name, target, ",pflash0=code,pflash1=vars"), "-S"), flash...)...)
		}
	},
	"a restored machine writes the saved variables into its own": func(t *testing.T, w *world, target target) {
		if runtime.GOOS != "linux" {
			t.Skip("memory is in a memfd on Linux alone")
		}
		const flash = ",pflash0=code,pflash1=vars,memory-backend=ram0"
		code, vars := w.flashFile(t, "code", target.flashSize()), w.flashFile(t, "vars", target.flashSize())
		args := append(append(w.machineArgs("a", target, flash), code...), vars...)
		v := w.launch(t, "a", append(args, "-object", memfd, "-S")...)
		c := w.dial(t, "a")
		s := w.save(t, v, c)
		require.NoError(t, c.Execute(t.Context(), "quit", nil, nil))
		v.result(t)
		want, err := os.ReadFile(w.path("vars"))
		require.NoError(t, err)

		require.NoError(t, os.WriteFile(w.path("own"), make([]byte, target.flashSize()), 0o600))
		own := strings.Replace(vars[1], w.path("vars"), w.path("own"), 1)
		args = append(append(w.machineArgs("b", target, flash), code...), "-blockdev", own, "-object", ramFile(s.ram), "-incoming", "defer")
		v = w.startSaved(t, s, args...)
		w.await(t, v, "b")
		c = w.dial(t, "b")
		require.NoError(t, c.Execute(t.Context(), "migrate-set-capabilities", ignoreShared(), nil))
		require.NoError(t, c.Execute(t.Context(), "migrate-incoming", map[string]any{"uri": "fd:3"}, nil))
		requireLoaded(t, c)
		require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
		require.NoError(t, c.Execute(t.Context(), "quit", nil, nil))
		v.result(t)
		got, err := os.ReadFile(w.path("own"))
		require.NoError(t, err)
		require.Equal(t, string(want[:16]), string(got[:16]))
		require.Equal(t, "vars", string(got[:4]))
	},
}
