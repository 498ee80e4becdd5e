package castra

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/magefile/mage/mage"
	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
)

// magefiles are those of testdata, compiled once for all tests.
var magefiles = struct {
	sync.Mutex
	dir string // removed by the last of the tests in TestMagefiles
}{}

// compiled is the magefile of testdata/magefiles/name as a program.
func compiled(t *testing.T, name string) string {
	t.Helper()
	require.NotEmpty(t, magefiles.dir)
	program := filepath.Join(magefiles.dir, name)
	if _, err := os.Stat(program); err == nil {
		return program
	}
	var out bytes.Buffer
	status := mage.Invoke(mage.Invocation{
		Dir: filepath.Join("testdata", "magefiles", name), CompileOut: program, CacheDir: magefiles.dir,
		Stdout: &out, Stderr: &out, Stdin: &bytes.Buffer{},
	})
	require.Zero(t, status, out.String())
	return program
}

// result is what a magefile did.
type result struct {
	stdout, stderr string
	status         int
}

// mage runs a target of the magefile in the world's project.
func (w *world) mage(magefile string, args ...string) result {
	w.Helper()
	return w.run(compiled(w.T, magefile), args...)
}

// run runs a program in the world's project.
func (w *world) run(program string, args ...string) result {
	w.Helper()
	return w.runIn(w.dir, program, args...)
}

func (w *world) runIn(dir, program string, args ...string) result {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), program, args...)
	var out, fault bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &fault
	err := cmd.Run()
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		require.NoError(w, err)
	}
	return result{out.String(), fault.String(), cmd.ProcessState.ExitCode()}
}

// mageWorld is a world for magefiles: they take all from the environment.
func mageWorld(t *testing.T, vms ...string) *world {
	w := newWorld(t, patient, vms...)
	for _, name := range []string{"CONFIG", "QCOW", "FORCE", "BOOTSTRAP", "JSON", "WORKSPACE", "SYNTHETIC", "TEMPLATES_MAX"} {
		t.Setenv("CASTRA_"+name, "")
	}
	t.Setenv("CASTRA_HOME", w.home)
	t.Setenv("CASTRA_ACCEL", "tcg")
	t.Setenv("CASTRA_WARM", "0")
	for _, name := range []string{"MAGEFILE_VERBOSE", "MAGEFILE_ENABLE_COLOR", "MAGEFILE_TIMEOUT"} {
		t.Setenv(name, "")
	}
	return w
}

// Little projects, as users write them: the targets through mage itself.
func TestMagefiles(t *testing.T) {
	magefiles.dir = t.TempDir()
	t.Run("list", testList)
	t.Run("up, status, down", testThroughMage)
	t.Run("named import", testNamedImport)
	t.Run("dependencies", testDependencies)
	t.Run("exit statuses", testExitStatuses)
	t.Run("init", testInitThroughMage)
	t.Run("default", testDefault)
	t.Run("CI", testCI)
	t.Run("one dependency of two targets", testSharedDependency)
	t.Run("within", testWithinThroughMage)
	t.Run("logs, bus, copy, prune, doctor", testOtherVerbs)
	t.Run("without castra.toml", testWithoutConfig)
	t.Run("rows of exit statuses", testStatusRows)
	t.Run("go tool mage", testGoTool)
	t.Run("Ctrl-C", testInterrupt)
	t.Run("time limit", testTimeLimit)
	t.Run("reader gone", testReaderGone)
	t.Run("control sequences", testSequencesThroughMage)
	t.Run("clash", testClash)
}

func testList(t *testing.T) {
	w := mageWorld(t)
	for _, name := range []string{"root", "named", "deps", "default", "ci"} {
		r := w.mage(name, "-l")
		require.Zero(t, r.status, r.stderr)
		golden(t, filepath.Join("magefiles", name, "list.golden"), r.stdout)
	}
	for _, target := range []string{"up", "down", "clean", "status", "ports", "plan", "logs", "bus", "ssh", "exec", "copy", "within", "prune", "init", "doctor"} {
		r := w.mage("root", "-h", target)
		require.Zero(t, r.status, r.stderr)
		golden(t, filepath.Join("magefiles", "root", target+".golden"), r.stdout)
	}
}

func testThroughMage(t *testing.T) {
	w := mageWorld(t, vm("web", "[[vms.port_forwards]]", "guest = 80"))
	r := w.mage("root", "up")
	require.Zero(t, r.status, r.stderr)
	require.Empty(t, r.stdout, "results alone go to stdout")
	require.Contains(t, r.stderr, "web-0")

	r = w.mage("root", "status", "-json")
	require.Zero(t, r.status, r.stderr)
	var status ProjectStatus
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &status), r.stdout)
	require.Equal(t, w.open().StateRoot(), status.Root)
	require.Len(t, status.VMs, 1)
	require.Equal(t, "running", status.VMs[0].State)
	require.Equal(t, w.running(), []int{status.VMs[0].PID})

	r = w.mage("root", "status")
	require.Zero(t, r.status, r.stderr)
	require.Regexp(t, `(?m)^web-0\s+running\s+\d+`, r.stdout)
	r = w.mage("root", "ports")
	require.Regexp(t, `(?m)^web-0\s+127\.0\.0\.1:\d+\s+80/tcp\s+active`, r.stdout)
	r = w.mage("root", "ports", "-active", "-json")
	require.Zero(t, r.status, r.stderr)

	r = w.mage("root", "exec", "web", "cat; echo to stderr >&2; exit 42")
	require.Equal(t, 42, r.status)
	require.Contains(t, r.stderr, "to stderr")

	t.Setenv("CASTRA_JSON", "1")
	r = w.mage("root", "down")
	require.Zero(t, r.status, r.stderr)
	var kinds []event.Kind
	for _, rec := range readRecords(t, bytes.NewBufferString(r.stderr)) {
		kinds = append(kinds, rec.Event.Kind())
	}
	require.Contains(t, kinds, event.Kind("vm.overlay.discarded"))
	w.cleanSlate()

	r = w.mage("root", "ports", "-active")
	require.NotContains(t, r.stdout, "web-0")
	require.Zero(t, w.mage("root", "clean").status)
}

func testNamedImport(t *testing.T) {
	w := mageWorld(t, vm("web"))
	require.Equal(t, "own clean\n", w.mage("named", "clean").stdout)
	require.Zero(t, w.mage("named", "vm:up").status)
	require.Len(t, w.running(), 1)
	require.Equal(t, exitBusy, w.mage("named", "vm:clean").status)
	require.Zero(t, w.mage("named", "vm:down", "vm:clean").status)
	w.cleanSlate()
}

func testDependencies(t *testing.T) {
	w := mageWorld(t, vm("web"), vm("db"))
	r := w.mage("deps", "web")
	require.Zero(t, r.status, r.stderr)
	require.Equal(t, "web ran\n", r.stdout)
	require.Equal(t, []string{"web-0 running", "db-0 stopped"}, w.states())
	r = w.mage("deps", "integration", "web", "stop")
	require.Zero(t, r.status, r.stderr)
	require.Equal(t, "integration ran\nweb ran\n", r.stdout)
	w.cleanSlate()

	w.personality("web-0:exit-1")
	r = w.mage("deps", "web")
	require.Equal(t, exitFailed, r.status, r.stderr)
	require.Empty(t, r.stdout)
	require.Contains(t, r.stderr, "up web-0: launch: ")
	w.cleanSlate()
}

func testExitStatuses(t *testing.T) {
	w := mageWorld(t, vm("web"))
	require.Zero(t, w.mage("root", "down").status)
	require.Equal(t, exitNoInput, w.mage("root", "exec", "nosuch", "true").status)
	require.Equal(t, exitNoInput, w.mage("root", "exec", "web", "true").status)

	t.Setenv("CASTRA_BOOTSTRAP", "sometimes")
	r := w.mage("root", "up")
	require.Equal(t, exitUsage, r.status, r.stderr)
	t.Setenv("CASTRA_BOOTSTRAP", "")

	t.Setenv("CASTRA_HOME", "relative")
	require.Equal(t, exitUsage, w.mage("root", "up").status)
	t.Setenv("CASTRA_HOME", w.home)

	w.personality("exit-1")
	r = w.mage("root", "up")
	require.Equal(t, exitFailed, r.status)
	require.Contains(t, r.stderr, "could not start, as told")
	require.Contains(t, r.stderr, "next: read "+w.layout().QEMULog("web-0"))
	w.personality("")

	w.configure(patient, vm("web", "memroy = 1", "cpuz = 2"))
	r = w.mage("root", "up")
	require.Equal(t, exitConfig, r.status)
	require.Contains(t, r.stderr, "memroy")
	require.Contains(t, r.stderr, "cpuz")
	r = w.mage("root", "status")
	require.Zero(t, r.status, "what runs can be seen all the same")
	require.Contains(t, r.stderr, "memroy")

	t.Setenv("CASTRA_CONFIG", filepath.Join(w.dir, "nosuch.toml"))
	require.Equal(t, exitNoInput, w.mage("root", "up").status)
	t.Setenv("CASTRA_CONFIG", "")
	w.configure(patient, vm("web"))
	t.Setenv("PATH", t.TempDir())
	r = w.mage("root", "up")
	require.Equal(t, exitUnavailable, r.status)
	require.Contains(t, r.stderr, "next: install it")
}

// Default = castra.Up: plain mage brings the VMs up.
func testDefault(t *testing.T) {
	w := mageWorld(t, vm("web"))
	require.Zero(t, w.mage("default").status)
	require.Equal(t, []string{"web-0 running"}, w.states())
	require.Zero(t, w.mage("default", "down").status)
	w.cleanSlate()
}

func testCI(t *testing.T) {
	w := mageWorld(t, vm("web", "[[vms.port_forwards]]", "guest = 80"))
	r := w.mage("ci", "ci")
	require.Zero(t, r.status, r.stderr)
	require.Equal(t, "tests run against true [web-0]\n", r.stdout)
	w.cleanSlate()
	t.Setenv("FAIL", "1")
	r = w.mage("ci", "ci")
	require.Equal(t, 1, r.status)
	require.Contains(t, r.stderr, "a test failed")
	w.cleanSlate()
}

// Two targets that need the same VM, run beside each other: it is started once.
func testSharedDependency(t *testing.T) {
	w := mageWorld(t, vm("web"), vm("db"))
	t.Setenv("CASTRA_JSON", "1")
	r := w.mage("ci", "all")
	require.Zero(t, r.status, r.stderr)
	require.ElementsMatch(t, []string{"web ran", "api ran"}, strings.Split(strings.TrimSpace(r.stdout), "\n"))
	require.Equal(t, 1, strings.Count(r.stderr, `"type":"vm.launched"`))
	require.Equal(t, 1, strings.Count(r.stderr, `"type":"command.accepted"`), "up itself ran once")
	w.down()
}

func testWithinThroughMage(t *testing.T) {
	w := mageWorld(t, vm("web", "[[vms.port_forwards]]", "guest = 80"))
	r := w.mage("root", "within", `echo "$CASTRA_WEB_ADDR_80"; exit 9`)
	require.Equal(t, 9, r.status, r.stderr)
	require.Regexp(t, `^127\.0\.0\.1:\d+\n$`, r.stdout)
	w.cleanSlate()
	require.Zero(t, w.mage("root", "within", "true").status)
	w.cleanSlate()
}

func testOtherVerbs(t *testing.T) {
	w := mageWorld(t, vm("web"))
	w.write("bootstrap/web/run.sh", "echo from the script")
	require.Zero(t, w.mage("root", "up").status)
	r := w.mage("root", "logs", "-vm=web", "-tail=50")
	require.Zero(t, r.status, r.stderr)
	require.Contains(t, r.stdout, "web-0 bootstrap from the script\n")
	require.Equal(t, exitNoInput, w.mage("root", "logs", "-vm=nosuch").status)

	r = w.mage("root", "bus", "-json", "-tail=3")
	require.Zero(t, r.status, r.stderr)
	require.Len(t, strings.Split(strings.TrimSpace(r.stdout), "\n"), 4)

	there := filepath.Join(t.TempDir(), "copied")
	r = w.mage("root", "copy", "castra.toml", "web:"+there)
	require.Zero(t, r.status, r.stderr)
	require.Equal(t, mustRead(t, filepath.Join(w.dir, "castra.toml")), mustRead(t, there))
	require.Equal(t, exitUsage, w.mage("root", "copy", "a", "b").status)

	require.Equal(t, exitBusy, w.mage("root", "prune").status)
	r = w.mage("root", "prune", "-dryrun")
	require.Zero(t, r.status, r.stderr)
	require.Contains(t, r.stdout, "would remove")
	require.Contains(t, r.stdout, "running: ")
	require.Len(t, w.running(), 1)
	r = w.mage("root", "prune", "-force", "-nologs")
	require.Zero(t, r.status, r.stderr)
	require.Empty(t, w.running())
	require.FileExists(t, w.layout().SerialLog("web-0"))

	r = w.mage("root", "doctor", "-json")
	require.Zero(t, r.status, r.stdout)
	var d Diagnosis
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &d))
	require.True(t, d.OK)
	t.Setenv("PATH", t.TempDir())
	r = w.mage("root", "doctor")
	require.Equal(t, exitUnavailable, r.status)
	require.Contains(t, r.stdout, "QEMU")
}

func testWithoutConfig(t *testing.T) {
	w := mageWorld(t, vm("web"))
	shop := w.second("shop")
	w.up()
	shop.up()
	nowhere := *w
	nowhere.dir = t.TempDir()
	r := nowhere.mage("root", "status", "-json")
	require.Zero(t, r.status, r.stderr)
	var all struct{ Workspaces []ProjectStatus }
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &all))
	require.Len(t, all.Workspaces, 2)
	require.Contains(t, nowhere.mage("root", "ports").stdout, "workspace "+shop.open().id)
	require.Equal(t, exitUsage, nowhere.mage("root", "exec", "web", "true").status, "in which of the two?")
	require.Equal(t, exitNoInput, nowhere.mage("root", "up").status)

	t.Setenv("CASTRA_WORKSPACE", shop.open().id)
	require.Equal(t, 5, nowhere.mage("root", "exec", "shop", "exit 5").status)
	require.Equal(t, exitUsage, w.mage("root", "up").status, "that is not the project here")
	require.Zero(t, nowhere.mage("root", "down").status)
	require.Len(t, w.running(), 1)
	t.Setenv("CASTRA_WORKSPACE", "nosuch")
	require.Equal(t, exitNoInput, nowhere.mage("root", "down").status)
	t.Setenv("CASTRA_WORKSPACE", "")
	require.Zero(t, nowhere.mage("root", "down").status)
	w.cleanSlate()
	require.Zero(t, nowhere.mage("root", "status").status)
	require.Zero(t, nowhere.mage("root", "prune", "-global", "-images").status)
}

func testInitThroughMage(t *testing.T) {
	w := mageWorld(t)
	r := w.mage("root", "init", "-dir=new", "-name=shop")
	require.Zero(t, r.status, r.stderr)
	p, err := config.Load(filepath.Join(w.dir, "new", "castra.toml"))
	require.NoError(t, err)
	require.Equal(t, "shop", p.Name)
	require.Contains(t, r.stdout, filepath.Join(w.home, "projects", "shop-"))
	r = w.mage("root", "init", `-name=a"b`)
	require.Equal(t, exitUsage, r.status)
}
