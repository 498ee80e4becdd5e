package castra

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Targets as processes of their own, which are killed, lose their streams, and
// are called from odd places.
func TestMagefileProcesses(t *testing.T) {
	magefiles.dir = t.TempDir()
	t.Run("killed", testKilledUp)
	t.Run("killed while QEMU starts", testKilledLaunch)
	t.Run("Ctrl-C in a bootstrap", testInterruptedBootstrap)
	t.Run("time limit of a deaf guest", testTimeLimitOfTheDeaf)
	t.Run("another user", testAnotherUser)
	t.Run("streams", testStreams)
	t.Run("places", testPlaces)
	t.Run("secrets", testSecretsWhenVerbose)
	t.Run("homes", testHomes)
}

// background starts a target in a process group of its own.
func (w *world) background(args ...string) (*exec.Cmd, *lines) {
	w.Helper()
	cmd := exec.Command(compiled(w.T, "root"), args...)
	out := &lines{}
	cmd.Dir, cmd.Stderr = w.dir, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(w, cmd.Start())
	w.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, out
}

// Failure bank 64: an up that is killed between launch and login says nothing
// of how its VM does: that is seen from the process.
func testKilledUp(t *testing.T) {
	for name, alive := range map[string]bool{"QEMU alive": true, "QEMU dead": false} {
		for _, verb := range []string{"up", "down", "clean"} {
			t.Run(name+", "+verb, func(t *testing.T) {
				w := mageWorld(t)
				w.configure(hasty, vm("web"))
				w.personality("slow-boot=2s")
				cmd, out := w.background("up")
				require.Eventually(t, out.has("web-0  launched"), patience, poll)
				require.NoError(t, cmd.Process.Kill())
				require.Error(t, cmd.Wait())
				pids := w.running()
				require.Len(t, pids, 1, "it was not the guest that was killed")
				state := "booting"
				if !alive {
					w.crash()
					state = "crashed"
				}
				require.Equal(t, []string{"web-0 " + state}, w.states())
				w.personality("")
				r := w.mage("root", verb)
				switch {
				case verb == "clean" && alive:
					require.Equal(t, exitBusy, r.status, r.stderr)
				case verb == "up" && alive:
					require.Zero(t, r.status, r.stderr)
					require.Equal(t, pids, w.running(), "it is seen through")
				case verb == "up":
					require.Zero(t, r.status, r.stderr)
					require.Equal(t, []string{"web-0 running"}, w.states())
				default:
					require.Zero(t, r.status, r.stderr)
				}
				require.Zero(t, w.mage("root", "down").status)
				w.cleanSlate()
			})
		}
	}
}

// An up that is killed leaves a QEMU that has yet to take its pidfile. Whoever comes next waits for it, and takes
// nothing away from it before.
func testKilledLaunch(t *testing.T) {
	for _, verb := range []string{"up", "down", "clean"} {
		t.Run(verb, func(t *testing.T) {
			w := mageWorld(t)
			w.configure(hasty, vm("web"))
			w.personality("slow-start=1500ms")
			cmd, _ := w.background("up")
			require.Eventually(t, func() bool { return len(w.running()) == 1 }, patience, poll)
			require.NoError(t, cmd.Process.Kill())
			require.Error(t, cmd.Wait())
			pids := w.running()
			require.Len(t, pids, 1)
			require.NoFileExists(t, w.layout().Pidfile("web-0"), "the kill came too late for this test")
			require.Equal(t, []string{"web-0 booting"}, w.states())
			w.personality("")
			r := w.mage("root", verb)
			switch verb {
			case "up":
				require.Zero(t, r.status, r.stderr)
				require.Equal(t, pids, w.running(), "it is seen through")
				require.Equal(t, []string{"web-0 running"}, w.states())
			case "down":
				require.Zero(t, r.status, r.stderr)
				require.Empty(t, w.running())
			case "clean":
				require.Equal(t, exitBusy, r.status, r.stderr)
			}
			require.Zero(t, w.mage("root", "down").status)
			w.cleanSlate()
		})
	}
}

// Failure bank 62, 98: also a bootstrap is broken off by Ctrl-C, and what this
// up started goes.
func testInterruptedBootstrap(t *testing.T) {
	w := mageWorld(t)
	w.configure(patient, w.bootstrapped("web", "echo begun; exec sleep 600"))
	cmd, out := w.background("up")
	require.Eventually(t, out.has("begun"), patience, poll)
	require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.False(t, out.has("cleanup timeout exceeded")())
	w.cleanSlate()
}

// Failure bank 99: what the time limit leaves of a guest that does not even end
// when told is on record, and down ends it.
func testTimeLimitOfTheDeaf(t *testing.T) {
	for _, limit := range []string{"300ms", "2s"} {
		w := mageWorld(t, vm("web"), vm("db"))
		w.personality("slow-boot=600s,ignore-powerdown,ignore-term")
		r := w.mage("root", "-t", limit, "up")
		require.NotZero(t, r.status, limit)
		running := w.running()
		w.personality("")
		var seen int
		for _, state := range w.states() {
			if strings.HasSuffix(state, " booting") || strings.HasSuffix(state, " not responding") {
				seen++
			}
		}
		require.Len(t, running, seen, "%s: each is to be seen: %v", limit, w.states())
		w.configure(hasty, vm("web"), vm("db"))
		require.Zero(t, w.mage("root", "down").status)
		w.cleanSlate()
		require.Zero(t, w.mage("root", "up").status)
		require.Zero(t, w.mage("root", "down").status)
	}
}

// Row 77 of the exit statuses, where the tests run as root too: as another
// user, whom a file's mode keeps out.
func testAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may become another")
	}
	const nobody = 65534
	w := mageWorld(t, vm("web"))
	program := compiled(t, "root")
	for _, path := range []string{program, w.dir} { // both are below directories of the test's own
		for dir := filepath.Dir(path); dir != filepath.Dir(os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
			require.NoError(t, os.Chmod(dir, 0o755))
		}
	}
	require.NoError(t, os.Chmod(w.dir, 0o755))
	require.NoError(t, os.Chmod(filepath.Join(w.dir, "castra.toml"), 0o600))
	for _, verb := range []string{"up", "plan"} {
		cmd := exec.Command(program, verb)
		cmd.Dir, cmd.Env = w.dir, append(os.Environ(), "HOME=/nonexistent")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		require.ErrorAs(t, err, new(*exec.ExitError), string(out))
		require.Equal(t, exitPermission, cmd.ProcessState.ExitCode(), string(out))
		require.Contains(t, string(out), filepath.Join(w.dir, "castra.toml"))
		require.Contains(t, string(out), "\n  next: ")
	}
}

// Failure bank 106: a result that cannot be written is a failure.
func testStreams(t *testing.T) {
	w := mageWorld(t, vm("web"))
	program := compiled(t, "root")
	w.write("bootstrap/web/run.sh", "echo one; echo two; echo three")
	require.Zero(t, w.mage("root", "up").status)
	for _, verb := range []string{"status", "status -json", "ports", "ports -json", "plan", "plan -json", "logs", "bus", "bus -json", "prune -dryrun", "doctor"} {
		r := w.run("sh", "-c", `"$1" `+verb+" >/dev/full", "sh", program)
		require.Equal(t, exitIO, r.status, "%s: %s", verb, r.stderr)
		require.Contains(t, r.stderr, "write /dev/stdout: no space left on device\n  next: ", verb)
	}
	// Results are apart from what is told meanwhile, with -v as well.
	r := w.run(program, "-v", "ports", "-json")
	require.Zero(t, r.status)
	require.True(t, strings.HasPrefix(r.stdout, "{"), r.stdout)
	require.Zero(t, w.mage("root", "down").status)
}

// Failure bank 108: wherever it is called from, it is the same workspace.
func testPlaces(t *testing.T) {
	w := mageWorld(t, vm("web", `base_image = "img/base.qcow2"`))
	w.configure(patient, strings.Replace(vm("web"), "base.qcow2", "img/base.qcow2", 1))
	require.NoError(t, os.Mkdir(filepath.Join(w.dir, "img"), 0o700))
	require.NoError(t, os.Rename(w.base, filepath.Join(w.dir, "img", "base.qcow2")))
	sub := filepath.Join(w.dir, "a", "b")
	require.NoError(t, os.MkdirAll(sub, 0o700))
	program := compiled(t, "root")
	root := w.open().StateRoot()
	plan := w.mage("root", "plan", "-json").stdout
	require.Contains(t, plan, fmt.Sprintf("%q", root))
	for name, run := range map[string]func() result{
		"from below":   func() result { return w.runIn(sub, program, "plan", "-json") },
		"-d and -w":    func() result { return w.goTool("-d", "magefiles", "-w", w.dir, "plan", "-json") },
		"-d, -w below": func() result { return w.goTool("-d", "magefiles", "-w", sub, "plan", "-json") },
		"magefiles/":   func() result { return w.goTool("-w", w.dir, "plan", "-json") },
		"CASTRA_CONFIG": func() result {
			return w.runIn("/", "env", "CASTRA_CONFIG="+filepath.Join(w.dir, "castra.toml"), program, "plan", "-json")
		},
	} {
		r := run()
		require.Zero(t, r.status, "%s: %s", name, r.stderr)
		require.Equal(t, plan, r.stdout, name)
	}
	require.Equal(t, exitNoInput, w.runIn("/", program, "plan").status, "there is none in reach")
}

// goTool runs `go tool mage` in a directory of this module that has its
// magefile in magefiles/.
func (w *world) goTool(args ...string) result {
	w.Helper()
	dir, err := os.MkdirTemp("testdata/magefiles", "places-*")
	require.NoError(w, err)
	defer func() { require.NoError(w, os.RemoveAll(dir)) }()
	require.NoError(w, os.Mkdir(filepath.Join(dir, "magefiles"), 0o700))
	source := mustRead(w.T, filepath.Join("testdata", "magefiles", "root", "magefile.go"))
	require.NoError(w, os.WriteFile(filepath.Join(dir, "magefiles", "magefile.go"), source, 0o600))
	return w.runIn(dir, "go", append([]string{"tool", "mage"}, args...)...)
}

// Failure bank 86: not with -v, nor in any other verb's output or on disk.
func testSecretsWhenVerbose(t *testing.T) {
	const canary = "s3cr3t-canary"
	const value = canary + " \"quoted\" $HOME\nsecond=line"
	w := mageWorld(t)
	w.configure(patient, w.bootstrapped("web", `printf 'length %s\n' "$(printf '%s' "$TOKEN" | wc -c)"; exit 3`,
		fmt.Sprintf("env = { TOKEN = %q }", value), `verify_command = "true"`))
	var told strings.Builder
	run := func(args ...string) {
		r := w.run(compiled(t, "root"), args...)
		told.WriteString(r.stdout + r.stderr)
	}
	for _, args := range [][]string{{"-v", "plan"}, {"-v", "up"}, {"-debug", "-v", "up"}, {"status", "-json"}, {"logs"}, {"bus", "-json"}, {"plan", "-json"}, {"-v", "down"}} {
		run(args...)
	}
	require.Contains(t, told.String(), fmt.Sprint("length ", len(value)), "the script had all of it")
	require.NotContains(t, told.String(), canary)
	require.NoError(t, filepath.WalkDir(w.home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			require.NotContains(t, string(mustRead(t, path)), canary, path)
		}
		return err
	}))
}

// Failure bank 90: state is never made by accident in the working directory.
func testHomes(t *testing.T) {
	w := mageWorld(t, vm("web"))
	program := compiled(t, "root")
	file := w.write("file", "")
	environment := slices.DeleteFunc(os.Environ(), func(pair string) bool {
		return strings.HasPrefix(pair, "HOME=") || strings.HasPrefix(pair, "CASTRA_HOME=")
	})
	config := string(mustRead(t, filepath.Join(w.dir, "castra.toml")))
	state := filepath.Join(filepath.Dir(w.dir), "state")
	for name, home := range map[string][]string{"unset": nil, "empty": {"HOME="}, "relative": {"HOME=rel"}, "below a file": {"HOME=" + file + "/home"}} {
		t.Run(name, func(t *testing.T) {
			w.write("castra.toml", config)
			before := tree(t, w.dir)
			run := func(args ...string) (int, string) {
				cmd := exec.Command(program, args...)
				cmd.Dir, cmd.Env = w.dir, slices.Concat(environment, home)
				out, err := cmd.CombinedOutput()
				if !errors.As(err, new(*exec.ExitError)) {
					require.NoError(t, err)
				}
				return cmd.ProcessState.ExitCode(), string(out)
			}
			status, text := run("up")
			require.Contains(t, []int{exitUsage, exitCantCreate}, status, text)
			require.Contains(t, text, "CASTRA_HOME")
			require.Equal(t, before, tree(t, w.dir))
			w.write("castra.toml", strings.Replace(config, "[lifecycle]", fmt.Sprintf("state_dir = %q\n[lifecycle]", state), 1))
			for _, verb := range []string{"up", "status", "ports", "logs", "down", "clean"} {
				status, text := run(verb)
				require.Zero(t, status, "%s: %s", verb, text)
			}
			require.Equal(t, before, tree(t, w.dir))
			require.NoError(t, os.RemoveAll(state))
		})
	}
}
