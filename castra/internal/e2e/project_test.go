package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra"
)

const (
	module      = "castra.example/castra"
	verbLimit   = 4 * time.Minute
	magefile    = "//go:build mage\n\npackage main\n\nimport (\n\t//mage:import\n\t_ \"" + module + "/castra\"\n)\n"
	projectName = "e2e"
)

var (
	shared string // directory of this test run
	binary string // a compiled magefile that imports castra
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "castra-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	shared = dir
	return m.Run()
}

var compile = sync.OnceValue(func() error {
	repo, err := filepath.Abs("../../..")
	if err != nil {
		return err
	}
	dir := filepath.Join(shared, "magefile")
	if err := scaffold(dir, repo); err != nil {
		return err
	}
	binary = filepath.Join(shared, "mage-e2e")
	cmd := exec.Command("go", "tool", "mage", "-compile", binary)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the magefile: %w\n%s", err, out)
	}
	return nil
})

// scaffold writes a user's module. Its requirements are the repository's, so
// that nothing needs to be resolved over the network.
func scaffold(dir, repo string) error {
	mod, err := os.ReadFile(filepath.Join(repo, "go.mod"))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(repo, "go.sum"))
	if err != nil {
		return err
	}
	text := strings.Replace(string(mod), "module "+module, "module user.example/project", 1) +
		fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %s => %s\n", module, module, repo)
	return errors.Join(
		os.MkdirAll(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o600),
		os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o600),
		os.WriteFile(filepath.Join(dir, "magefile.go"), []byte(magefile), 0o600),
	)
}

// guests is the directory of the small guest, which all tests share.
var guests = sync.OnceValues(func() (string, error) {
	disk, err := castra.EnsureImage(context.Background(), castra.Environment(), "small", nil)
	return filepath.Dir(filepath.Dir(disk)), err
})

// project is a scratch project with the workspace beside its castra.toml, and
// with a CASTRA_HOME, and so templates, of its own.
type project struct {
	t    *testing.T
	dir  string
	home string
	env  []string
}

// newProject writes castra.toml from its [[vms]] part. It is skipped where
// real guests cannot run, and fails there when they are required.
func newProject(t *testing.T, vms string) *project {
	t.Helper()
	needQEMU(t)
	require.NoError(t, compile())
	p := &project{t: t, dir: t.TempDir()}
	p.newHome()
	p.config(vms)
	t.Cleanup(p.end)
	return p
}

// newHome is one without templates.
func (p *project) newHome() {
	p.t.Helper()
	dir, err := guests()
	require.NoError(p.t, err)
	p.home = p.t.TempDir()
	require.NoError(p.t, os.Symlink(dir, filepath.Join(p.home, "guests")))
	p.env = append(p.env, "CASTRA_HOME="+p.home, "CASTRA_WARM=", "CASTRA_TEMPLATES_MAX=")
}

func needQEMU(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img", "apt-get"} {
		if _, err := exec.LookPath(tool); err != nil || testing.Short() {
			if os.Getenv("CASTRA_TEST_REQUIRE_QEMU") == "1" {
				t.Fatalf("real guests are required here: %s: %v", tool, err)
			}
			t.Skipf("no real guests: -short, or no %s", tool)
		}
	}
}

func (p *project) config(vms string) {
	p.t.Helper()
	text := "version = \"0.2\"\n\n[project]\nname = \"" + projectName + "\"\nstate_dir = \".castra\"\n\n" + vms
	p.write("castra.toml", text)
}

func (p *project) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	require.NoError(p.t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(p.t, os.WriteFile(path, []byte(text), 0o600))
}

func (p *project) state(parts ...string) string {
	return filepath.Join(append([]string{p.dir, ".castra"}, parts...)...)
}

// result of one run of the magefile.
type result struct {
	stdout, stderr string
	status         int
}

func (r result) String() string {
	return fmt.Sprintf("exit status %d\nstdout:\n%s\nstderr:\n%s", r.status, r.stdout, r.stderr)
}

func (p *project) command(ctx context.Context, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = p.dir
	cmd.Env = append(append(os.Environ(), "CASTRA_CONFIG="), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C reaches a group
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, &stdout, &stderr
}

// mage runs a target to its end.
func (p *project) mage(args ...string) result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), verbLimit)
	defer cancel()
	cmd, stdout, stderr := p.command(ctx, args...)
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		p.t.Fatalf("mage %v: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs a target that has to succeed.
func (p *project) must(args ...string) result {
	p.t.Helper()
	r := p.mage(args...)
	require.Zero(p.t, r.status, "mage %v: %s", args, r)
	return r
}

type vmStatus struct {
	Name, State, SSH, Accelerator, Bootstrap, Problem string
	Start                                             string
	StartReason                                       string `json:"start_reason"`
	PID                                               int
	Forwards                                          []struct {
		HostIP    string `json:"host_ip"`
		HostPort  int    `json:"host_port"`
		GuestPort int    `json:"guest_port"`
	}
}

func (p *project) status() map[string]vmStatus {
	p.t.Helper()
	var s struct{ VMs []vmStatus }
	require.NoError(p.t, json.Unmarshal([]byte(p.must("status", "-json").stdout), &s))
	vms := map[string]vmStatus{}
	for _, vm := range s.VMs {
		vms[vm.Name] = vm
	}
	return vms
}

// events of one kind in events.jsonl.
func (p *project) events(kind string) []map[string]any {
	p.t.Helper()
	b, err := os.ReadFile(p.state("logs", "events.jsonl"))
	require.NoError(p.t, err)
	var found []map[string]any
	for line := range strings.Lines(string(b)) {
		var e map[string]any
		require.NoError(p.t, json.Unmarshal([]byte(line), &e), line)
		if e["type"] == kind {
			found = append(found, e)
		}
	}
	return found
}

// qemus are the QEMU processes of this project, by their open workspace.
func (p *project) qemus() []int {
	var pids []int
	exes, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range exes {
		if cwd, err := os.Readlink(link); err == nil && cwd == p.realState() {
			var pid int
			if _, err := fmt.Sscanf(link, "/proc/%d/cwd", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (p *project) realState() string {
	real, err := filepath.EvalSymlinks(p.state())
	if err != nil {
		return p.state()
	}
	return real
}

// cleanSlate asserts that nothing of a VM is left: process, overlay, seed,
// socket, pidfile.
func (p *project) cleanSlate() {
	p.t.Helper()
	require.Empty(p.t, p.qemus(), "QEMU processes")
	for _, pattern := range []string{"*.pid", "*.qmp", "overlays/*"} {
		left, err := filepath.Glob(p.state(pattern))
		require.NoError(p.t, err)
		require.Empty(p.t, left)
	}
}

// end prints what a failed test's guests said, and takes down what runs.
func (p *project) end() {
	if p.t.Failed() {
		logs, _ := filepath.Glob(p.state("logs", "*.log"))
		for _, log := range logs {
			b, _ := os.ReadFile(log)
			p.t.Logf("%s ends:\n%s", log, b[max(0, len(b)-3000):])
		}
	}
	if _, err := os.Stat(p.state()); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), verbLimit)
		defer cancel()
		cmd, _, stderr := p.command(ctx, "down")
		if err := cmd.Run(); err != nil {
			p.t.Logf("down: %v\n%s", err, stderr)
		}
	}
	if left := p.qemus(); len(left) > 0 {
		p.t.Errorf("QEMU processes outlive the test: %v", left)
	}
}

// eventually tries until the condition holds.
func (p *project) eventually(what string, condition func() bool) {
	p.t.Helper()
	require.Eventually(p.t, condition, verbLimit, 20*time.Millisecond, what)
}
