package castra

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/magefile/mage/mage"
	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/workspace"
)

// Every row of the README's table of exit statuses, as a shell sees it.
func testStatusRows(t *testing.T) {
	for _, c := range []struct {
		status int
		args   []string
		spoil  func(w *world)
	}{
		{exitUsage, []string{"up"}, func(w *world) { w.Setenv("CASTRA_BOOTSTRAP", "often") }},
		{exitConfig, []string{"up"}, func(w *world) { w.configure(patient, vm("web", "cpus = 0")) }},
		{exitConfig, []string{"up"}, func(w *world) { require.NoError(w, os.WriteFile(w.base, []byte("<html>404"), 0o600)) }},
		{exitNoInput, []string{"up"}, func(w *world) { require.NoError(w, os.Remove(filepath.Join(w.dir, "castra.toml"))) }},
		{exitNoInput, []string{"status", "-workspace=nosuch"}, func(*world) {}},
		{exitNoInput, []string{"exec", "nosuch", "true"}, func(*world) {}},
		{exitUnavailable, []string{"up"}, func(w *world) { w.Setenv("PATH", w.TempDir()) }},
		{exitUnavailable, []string{"up"}, func(w *world) { w.Setenv("CASTRA_ACCEL", "hvf") }},
		{exitFailed, []string{"up"}, func(w *world) { w.personality("exit-1") }},
		{exitCantCreate, []string{"up"}, func(w *world) { require.NoError(w, os.WriteFile(w.home, nil, 0o600)) }},
		{exitIO, []string{"up"}, func(w *world) {
			w.configure(patient, vm("web"), strings.Replace(vm("db", "count = 60"), "64 MiB", "900 GiB", 1))
		}},
		{exitBusy, []string{"clean"}, func(w *world) { w.up() }},
		{exitPermission, []string{"up"}, func(w *world) {
			if os.Getuid() == 0 {
				w.Skip("root may do all")
			}
			require.NoError(w, os.Mkdir(w.home, 0o500))
		}},
		{0, []string{"up", "status", "down"}, func(*world) {}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			w := mageWorld(t, vm("web"))
			program := compiled(t, "root") // before PATH is spoilt
			c.spoil(w)
			r := w.run(program, c.args...)
			require.Equal(t, c.status, r.status, r.stderr)
			if c.status != 0 {
				require.Regexp(t, `(?m)^  next: \S`, r.stderr, "what to do next")
			}
			w.personality("")
			for _, pid := range w.running() {
				require.NotZero(t, pid)
				w.down()
			}
		})
	}
}

// Through `go tool mage`, as projects call it, a status comes out as it is.
func testGoTool(t *testing.T) {
	w := mageWorld(t, vm("web"))
	magefile, err := filepath.Abs(filepath.Join("testdata", "magefiles", "root"))
	require.NoError(t, err)
	tool := func(args ...string) int {
		r := w.runIn(magefile, "go", append([]string{"tool", "mage", "-d", magefile, "-w", w.dir}, args...)...)
		return r.status
	}
	require.Zero(t, tool("up"))
	require.Equal(t, 42, tool("exec", "web", "exit 42"))
	require.Equal(t, exitBusy, tool("clean"))
	require.Equal(t, exitNoInput, tool("exec", "nosuch", "true"))
	require.Zero(t, tool("down"))
	w.configure(patient, vm("web", "cpuz = 2"))
	require.Equal(t, exitConfig, tool("up"))
}

// Ctrl-C reaches the process group; mage gives targets 5 s.
func testInterrupt(t *testing.T) {
	for name, times := range map[string]int{"once": 1, "twice": 2} {
		t.Run(name, func(t *testing.T) {
			w := mageWorld(t, vm("web"), vm("db"))
			w.personality("slow-boot=600s,ignore-powerdown")
			program := compiled(t, "root")
			cmd := exec.Command(program, "up")
			cmd.Dir = w.dir
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out := &lines{}
			cmd.Stderr = out
			require.NoError(t, cmd.Start())
			require.Eventually(t, func() bool { return out.has("web-0  launched")() && out.has("db-0   launched")() }, patience, poll)
			for range times {
				require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
			}
			err := cmd.Wait()
			require.Error(t, err)
			require.False(t, out.has("cleanup timeout exceeded")(), "it was ready before mage lost patience")
			w.personality("")
			w.down() // nothing is left that this would have to finish but records
			w.cleanSlate()
		})
	}
}

// At the end of -t mage leaves at once; what was started is taken down before.
func testTimeLimit(t *testing.T) {
	w := mageWorld(t, vm("web"))
	w.personality("slow-boot=600s")
	r := w.mage("root", "-t", "4s", "up")
	require.NotZero(t, r.status)
	require.Contains(t, r.stderr, "web-0  launched")
	w.personality("")
	w.cleanSlate()
}

// A reader that goes away does not stop a VM half way.
func testReaderGone(t *testing.T) {
	w := mageWorld(t, vm("web"))
	for _, line := range []string{`"$1" up 2>&1 | true`, `"$1" up >&- 2>&-`, `"$1" down 2>&1 | true`} {
		r := w.run("sh", "-c", line, "sh", compiled(t, "root"))
		require.Zero(t, r.status, r.stderr)
		if !strings.Contains(line, "down") {
			require.Eventually(t, func() bool { return w.states()[0] == "web-0 running" }, patience, poll, line)
			continue
		}
		require.Eventually(t, func() bool { return len(w.running()) == 0 }, patience, poll)
	}
}

// A target of the project's own that is called like one of castra's cannot be
// beside a root import; mage says so, and a named import is the way out.
func testClash(t *testing.T) {
	dir, err := os.MkdirTemp("testdata/magefiles", "clash-*") // below the module, whose packages it imports
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	source := "//go:build mage\n\npackage main\n\nimport (\n\t//mage:import\n\t_ \"castra.example/castra/castra\"\n)\n\n// Up is the project's own.\nfunc Up() {}\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "magefile.go"), []byte(source), 0o600))
	list := func() (int, string) {
		var out, fault bytes.Buffer
		status := mage.Invoke(mage.Invocation{Dir: dir, List: true, CacheDir: t.TempDir(), Stdout: &out, Stderr: &fault, Stdin: &bytes.Buffer{}})
		return status, out.String() + fault.String()
	}
	status, text := list()
	require.NotZero(t, status)
	require.Contains(t, text, "multiple definitions")
	named := strings.Replace(source, "//mage:import\n", "//mage:import vm\n", 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "magefile.go"), []byte(named), 0o600))
	status, text = list()
	require.Zero(t, status, text)
	require.Regexp(t, `(?m)^  up `, text)
	require.Regexp(t, `(?m)^  vm:up `, text)
}

// Mage 1.15, which knows no flags, still has the targets that take none.
func TestOldMage(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds another mage")
	}
	dir := t.TempDir()
	repo, err := filepath.Abs("..")
	require.NoError(t, err)
	mod := strings.Replace(string(mustRead(t, filepath.Join(repo, "go.mod"))), "module castra.example/castra", "module user.example/project", 1)
	mod += "\nrequire castra.example/castra v0.0.0\n\nreplace castra.example/castra => " + repo + "\n"
	for name, text := range map[string]string{
		"go.mod": mod, "go.sum": string(mustRead(t, filepath.Join(repo, "go.sum"))),
		"magefile.go": string(mustRead(t, filepath.Join("testdata", "magefiles", "root", "magefile.go"))),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	bin := t.TempDir()
	install := exec.Command("go", "install", "github.com/magefile/mage@v1.15.0")
	install.Dir, install.Env = dir, append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("mage 1.15 cannot be had here: %v\n%s", err, out)
	}
	cmd := exec.Command(filepath.Join(bin, "mage"), "-l")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "MAGEFILE_CACHE="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	for _, target := range []string{"up", "down", "clean"} {
		require.Regexp(t, regexp.MustCompile(`(?m)^  `+target+` `), string(out))
	}
}

// Two VMs of three fail in different ways at once: each is told with its name.
func TestEachFaultHasItsVM(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"), vm("cache"))
	w.write("bootstrap/web/run.sh", "echo no disk >&2; exit 3")
	w.write("bootstrap/db/run.sh", "exit 4")
	err := w.open().Up(t.Context(), UpOptions{})
	text := exit(err).Error()
	require.Regexp(t, `(?m)^up web-0: bootstrap: .*3`, text)
	require.Regexp(t, `(?m)^up db-0: bootstrap: .*4`, text)
	require.Equal(t, 2, strings.Count(text, "\n  next: "))
	require.Equal(t, "ok", w.status("cache-0").Health, "and the good one's fate is to be seen")
	require.Equal(t, "bootstrap failed", w.status("web-0").Health)
	w.down()
}

// What the user writes reaches the guest byte for byte.
func TestDollarsAreTheGuests(t *testing.T) {
	w := newWorld(t, patient, vm("web", `[vms.bootstrap]`, `verify_command = "test \"$WORD\" = 'pa$word ${UNSET} $$' && test -n \"$HOME\""`,
		`[vms.bootstrap.env]`, `WORD = 'pa$word ${UNSET} $$'`))
	w.write("bootstrap/web/run.sh", `printf '%s\n' "$WORD"`)
	t.Setenv("word", "expanded by the host")
	w.up()
	var said []string
	for _, e := range w.events.of("web-0") {
		if e, ok := e.(event.BootstrapOutput); ok {
			said = append(said, e.Line)
		}
	}
	require.Len(t, said, 1)
	require.NotContains(t, said[0], "expanded")
	w.down()
}

// A lock that another holds is told as busy, with who it is.
func TestBusyNamesItsHolder(t *testing.T) {
	err := &workspace.BusyError{Root: "/x", Holder: workspace.Holder{PID: 7, Command: "mage up"}}
	require.Equal(t, exitBusy, exitStatus(err))
	require.ErrorContains(t, err, `"mage up" (pid 7`)
	require.False(t, errors.Is(err, os.ErrNotExist))
}
