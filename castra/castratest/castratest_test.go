package castratest_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"castra.example/castra/castra"
	"castra.example/castra/castra/castratest"
	"castra.example/castra/castra/internal/qemutest"
)

func TestMain(m *testing.M) { qemutest.Main(m) }

const (
	castraTOML = `version = "0.2"
[project]
name = "scratch"
[lifecycle]
graceful_shutdown_wait_secs = 15
sigterm_wait_secs = 15
sigkill_wait_secs = 15
[[vms]]
name = "web"
base_image = "base.qcow2"
cpus = 1
memory = "64 MiB"
[[vms.port_forwards]]
guest = 80
`
	envChild = "CASTRA_TEST_CHILD" // what TestChild does
	serial   = "Linux version 6.1.0 (fake)"
)

// project is one with the VM web, a home for Castra's state, and fakes.
type project struct {
	*testing.T
	dir, home, fakes string
}

// newProject also sees to it that the test leaves nothing behind.
func newProject(t *testing.T) *project {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	p := &project{t, filepath.Join(root, "project"), filepath.Join(root, "home"), qemutest.Install(t)}
	require.NoError(t, os.Mkdir(p.dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "castra.toml"), []byte(castraTOML), 0o600))
	qemutest.WriteImage(t, filepath.Join(p.dir, "base.qcow2"), 1<<20)
	t.Setenv("PATH", p.fakes+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, name := range []string{"CONFIG", "QCOW", "FORCE", "BOOTSTRAP", "JSON", "WORKSPACE", "SYNTHETIC", "FAKE_QEMU", "FAKE_QEMU_IMG"} {
		t.Setenv("CASTRA_"+name, "")
	}
	t.Cleanup(p.cleanSlate)
	return p
}

func (p *project) options() castratest.Options {
	return castratest.Options{Options: castra.Options{Dir: p.dir, Home: p.home, Accelerator: "tcg"}, Required: true}
}

// cleanSlate: nothing runs, and no workspace is known that is gone.
func (p *project) cleanSlate() {
	assert.Empty(p, qemutest.Running(p, p.fakes), "a QEMU was left running")
	all, err := castra.OpenWorkspaces(castra.Options{Home: p.home}, castra.Selection{All: true}, nil)
	if assert.NoError(p, err) {
		assert.Empty(p, all.Projects)
		assert.Empty(p, all.Broken)
	}
}

func TestStart(t *testing.T) {
	p := newProject(t)
	t.Run("VMs", func(t *testing.T) {
		vms := castratest.Start(t, p.options())
		require.Equal(t, []string{"web-0"}, vms.VMs())
		conn, err := net.Dial("tcp", vms.Address("web", 80))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.Equal(t, "hello", vms.Run("web", "echo hello; echo aside >&2"))

		dir := t.TempDir() // the fake guest's commands run here
		require.NoError(t, os.WriteFile(filepath.Join(dir, "there"), []byte("text"), 0o600))
		vms.Copy(filepath.Join(dir, "there"), "web:"+dir+"/guest")
		vms.Copy("web-0:"+dir+"/guest", filepath.Join(dir, "back"))
		back, err := os.ReadFile(filepath.Join(dir, "back"))
		require.NoError(t, err)
		require.Equal(t, "text", string(back))
	})
	require.Empty(t, qemutest.Running(t, p.fakes), "the subtest ended")
}

func TestStartBesideEachOther(t *testing.T) {
	p := newProject(t)
	t.Run("VMs", func(t *testing.T) {
		a, b := castratest.Start(t, p.options()), castratest.Start(t, p.options())
		require.NotEqual(t, root(t, a), root(t, b))
		require.NotEqual(t, a.Address("web", 80), b.Address("web", 80))
		require.Len(t, qemutest.Running(t, p.fakes), 2)
		require.Equal(t, "a", a.Run("web", "echo a"))
		require.Equal(t, "b", b.Run("web", "echo b"))
	})
}

// root is the workspace.
func root(t *testing.T, vms *castratest.VMs) string {
	t.Helper()
	for _, pair := range vms.Environment() {
		if path, found := strings.CutPrefix(pair, "CASTRA_STATE_ROOT="); found {
			return path
		}
	}
	require.Fail(t, "no state root")
	return ""
}

// What ends a test, or keeps it from running, seen from outside.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		env      []string
		args     []string
		status   int
		says     []string
		saysNot  []string
		launches int
	}{
		"pass":       {says: []string{"--- PASS: TestChild", "guest says up", "web-0"}, saysNot: []string{serial}, launches: 1},
		"quiet":      {says: []string{"--- PASS: TestChild"}, saysNot: []string{"web-0"}, launches: 1},
		"fail":       {status: 1, says: []string{"--- FAIL: TestChild", "guest says up", serial}, launches: 1},
		"panic":      {status: 2, says: []string{"--- FAIL: TestChild", "panic: of the test", "web-0  stopped"}, launches: 1}, // it has not failed yet when it is cleaned up
		"subtest":    {status: 1, says: []string{"--- FAIL: TestChild/sub", serial}, launches: 1},
		"bad run":    {status: 1, says: []string{"echo news >&2; exit 3", "news", serial}, saysNot: []string{"went on"}, launches: 1},
		"bad port":   {status: 1, says: []string{"no forward leads to port 81", serial}, saysNot: []string{"went on"}, launches: 1},
		"bad copy":   {status: 1, says: []string{"nosuch", serial}, saysNot: []string{"went on"}, launches: 1},
		"bad option": {status: 1, says: []string{"--- FAIL: TestChild", `no such VM`}, saysNot: []string{"guest says up"}},
		"failed up": {
			env:    []string{"CASTRA_FAKE_QEMU=slow-boot=60s,crash"},
			status: 1, says: []string{"--- FAIL: TestChild", "up web-0"}, saysNot: []string{"guest says up"}, launches: 1,
		},
		"no QEMU": {
			env:  []string{"PATH="},
			says: []string{"--- SKIP: TestChild", "VMs cannot run here", "qemu"}, saysNot: []string{"guest says up"},
		},
		"no QEMU, required": {
			env:    []string{"PATH="},
			status: 1, says: []string{"--- FAIL: TestChild", "qemu"}, saysNot: []string{"guest says up", "--- SKIP"},
		},
		"short": {
			args: []string{"-test.short"},
			says: []string{"--- SKIP: TestChild", "-short"}, saysNot: []string{"guest says up"},
		},
		"short, required": {
			args: []string{"-test.short"},
			says: []string{"--- PASS: TestChild", "guest says up"}, launches: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t)
			tmp := t.TempDir()
			env := append([]string{envChild + "=" + name, "TMPDIR=" + tmp, "CASTRA_HOME=" + p.home, "CASTRA_ACCEL=tcg"}, c.env...)
			out, status := p.child(env, c.args)
			assert.Equal(t, c.status, status, out)
			for _, text := range c.says {
				assert.Contains(t, out, text)
			}
			for _, text := range c.saysNot {
				assert.NotContains(t, out, text)
			}
			launched, err := os.ReadDir(filepath.Join(p.fakes, "fakes"))
			require.NoError(t, err)
			assert.Len(t, launched, c.launches, out)
			left, err := os.ReadDir(tmp)
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

// child runs TestChild of this binary in the project.
func (p *project) child(env, args []string) (out string, status int) {
	p.Helper()
	self, err := os.Executable()
	require.NoError(p, err)
	cmd := exec.CommandContext(p.Context(), self, append([]string{"-test.run=^TestChild$", "-test.v"}, args...)...)
	var text bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, &text, &text
	cmd.Env = slices.Concat(os.Environ(), env)
	err = cmd.Run()
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		require.NoError(p, err)
	}
	return text.String(), cmd.ProcessState.ExitCode()
}

// TestChild is a user's test, for TestEnds.
func TestChild(t *testing.T) {
	does := os.Getenv(envChild)
	if does == "" {
		t.Skip("TestEnds runs it")
	}
	o := castratest.Options{Required: strings.HasSuffix(does, "required"), Quiet: does == "quiet"}
	if does == "bad option" {
		o.VMs = []string{"nosuch"}
	}
	vms := castratest.Start(t, o)
	t.Log("guest says", vms.Run("web", "echo up"))
	switch does {
	case "fail":
		t.FailNow()
	case "panic":
		panic("of the test")
	case "subtest":
		t.Run("sub", func(t *testing.T) { t.FailNow() })
	case "bad run":
		vms.Run("web", "echo news >&2; exit 3")
		t.Log("went on")
	case "bad port":
		vms.Address("web", 81)
		t.Log("went on")
	case "bad copy":
		vms.Copy("nosuch", "web:/nosuch")
		t.Log("went on")
	}
}
