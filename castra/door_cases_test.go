package castra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

// Failure bank 8: castra.toml may say what it likes meanwhile; what runs is
// reached as it was started, and its logs are there.
func TestRunningVMIsReachedAsItWasStarted(t *testing.T) {
	first, second := freePort(t), freePort(t)
	w := newWorld(t, patient, vm("web", forward(first, 22)))
	w.up()
	appendTo(t, w.layout().SerialLog("web-0"), "\nbooted once\n")
	w.configure(patient, vm("web", forward(second, 22)))
	out, err := w.exec("web", "printf %s $CASTRA_FAKE_GUEST", "")
	require.NoError(t, err)
	require.Equal(t, "web-0", out)
	require.Equal(t, fmt.Sprintf("root@127.0.0.1:%d", first), w.status("web-0").SSH)
	ports, err := w.open().Ports(t.Context())
	require.NoError(t, err)
	require.Equal(t, first, ports.Ports[0].HostPort)

	w.write("castra.toml", "[[vms")
	p := w.one(false).Projects[0]
	var logs, shell bytes.Buffer
	require.NoError(t, p.Logs(t.Context(), LogOptions{VM: "web"}, &logs))
	require.Contains(t, logs.String(), "booted once")
	require.NoError(t, p.Shell(t.Context(), "web", Shell{Stdin: strings.NewReader("echo from a shell\n"), Stdout: &shell, Stderr: &shell}))
	require.Contains(t, shell.String(), "from a shell")
	require.NoError(t, p.Down(t.Context()))
	w.configure(patient, vm("web"))
	w.cleanSlate()
}

// Failure bank 38 d: a process that stands still is neither well nor gone.
func TestStoppedProcessIsNotTakenForWell(t *testing.T) {
	w := newWorld(t, hasty, vm("web"))
	w.up()
	w.signal(w.status("web-0").PID, syscall.SIGSTOP)
	require.Eventually(t, func() bool { return w.status("web-0").State == "not responding" }, patience, poll)
	err := w.open().Up(t.Context(), UpOptions{})
	require.Error(t, err, "it does not run as configured: it does not run at all")
	require.Contains(t, explain(err), "mage down")
	require.ErrorAs(t, w.open().Clean(t.Context()), new(*RunningError))
	require.Len(t, w.running(), 1)
	w.down()
	w.cleanSlate()
	w.up()
	w.down()
}

// Failure bank 57: a VM without its pidfile is still one that runs.
func TestCleanSeesAVMWithoutItsPidfile(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	require.NoError(t, os.Remove(w.layout().Pidfile("web-0")))
	require.ErrorAs(t, w.open().Clean(t.Context()), new(*RunningError))
	_, err := w.global(false).Prune(t.Context(), PruneOptions{})
	require.ErrorAs(t, err, new(*RunningError))
	require.FileExists(t, w.overlay("web-0"))
	gone, err := w.one(true).Prune(t.Context(), PruneOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, gone.Items)
	w.cleanSlate()
}

// Failure bank 47: whoever takes the port after it was found free gets nothing.
func TestPortTakenBehindThePreflight(t *testing.T) {
	port := freePort(t)
	w := newWorld(t, patient)
	ran := filepath.Join(t.TempDir(), "ran")
	w.configure(patient, w.bootstrapped("web", "echo > "+ran, "[[vms.port_forwards]]", fmt.Sprintf("host = %d", port), "guest = 22"))
	var thief net.Listener
	visitors := make(chan struct{}, 100)
	var serving sync.WaitGroup
	w.events.on(func(e event.Event) {
		if e.Kind() != "vm.overlay.prepared" {
			return
		}
		var err error
		thief, err = new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		require.NoError(t, err)
		serving.Go(func() {
			for {
				conn, err := thief.Accept()
				if err != nil {
					return
				}
				visitors <- struct{}{}
				conn.Close()
			}
		})
	})
	err := w.open().Up(t.Context(), UpOptions{})
	w.events.on(nil)
	require.NotNil(t, thief)
	thief.Close()
	serving.Wait()
	var fault *VMError
	require.ErrorAs(t, err, &fault)
	require.Equal(t, "launch", fault.Phase)
	require.Contains(t, fmt.Sprint(fault.QEMU), fmt.Sprint(port))
	require.Empty(t, visitors, "nobody spoke to it")
	require.NoFileExists(t, ran)
	w.cleanSlate()
	w.up()
	require.FileExists(t, ran)
	w.down()
}

// Two projects that want one port, at once: one has it, and the other says so.
func TestOnePortForTwoProjects(t *testing.T) {
	port := freePort(t)
	w := newWorld(t, patient, vm("web", forward(port, 80)))
	other := *w
	other.dir = filepath.Join(filepath.Dir(w.dir), "other")
	require.NoError(t, os.Mkdir(other.dir, 0o700))
	other.write("castra.toml", strings.NewReplacer(`"scratch"`, `"other"`, `"base.qcow2"`, fmt.Sprintf("%q", w.base)).Replace(string(mustRead(t, filepath.Join(w.dir, "castra.toml")))))
	faults := make([]error, 2)
	var both sync.WaitGroup
	for i, p := range []*Project{w.open(), other.open()} {
		p.Reporter = nil
		both.Go(func() { faults[i] = p.Up(t.Context(), UpOptions{}) })
	}
	both.Wait()
	require.Len(t, w.running(), 1)
	winner, loser := w, &other
	if faults[0] != nil {
		winner, loser = &other, w
		faults[0], faults[1] = faults[1], faults[0]
	}
	require.NoError(t, faults[0])
	told := faults[1].Error() // by the check before, or by QEMU
	if fault := new(VMError); errors.As(faults[1], &fault) {
		told += fmt.Sprint(fault.QEMU)
	}
	require.Contains(t, told, fmt.Sprint(port))
	require.Equal(t, []string{"web-0 running"}, winner.states())
	require.Equal(t, []string{"web-0 stopped"}, loser.states())
	loser.down()
	require.Len(t, w.running(), 1)
	winner.down()
	w.cleanSlate()
	other.cleanSlate()
}

// Failure bank 53: the same port of ::1 is another's.
func TestForeignListenerOnIPv6(t *testing.T) {
	foreign, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer foreign.Close()
	port := foreign.Addr().(*net.TCPAddr).Port
	w := newWorld(t, patient, vm("web", forward(port, 22)))
	w.up()
	require.Equal(t, fmt.Sprintf("root@127.0.0.1:%d", port), w.status("web-0").SSH)
	out, err := w.exec("web", "echo from the guest", "")
	require.NoError(t, err)
	require.Equal(t, "from the guest\n", out)
	ports, err := w.open().Ports(t.Context())
	require.NoError(t, err)
	require.Contains(t, ports.Ports[0].Warning, "127.0.0.1, not localhost")
	var text strings.Builder
	require.NoError(t, ports.write(&text, PortsView{Verbose: true}))
	require.Contains(t, text.String(), "::1")
	w.down()
	require.NoError(t, foreign.Close())
	ports, err = w.open().Ports(t.Context())
	require.NoError(t, err)
	require.Empty(t, ports.Ports[0].Warning)
}

// Failure bank 84: what lies at remote_dir is another's, and stays.
func TestRemoteDirOfAnother(t *testing.T) {
	w := newWorld(t, patient)
	w.configure(patient, w.bootstrapped("web", "ls -a; exit 3"))
	remote := filepath.Join(filepath.Dir(w.dir), "guest-web")
	require.NoError(t, os.MkdirAll(remote, 0o700))
	precious := filepath.Join(remote, "run.sh")
	require.NoError(t, os.WriteFile(precious, []byte("echo of another"), 0o600))
	for range 2 { // failed ones clean up as well, and one is not in the way of the next
		require.Error(t, w.open().Up(t.Context(), UpOptions{}))
		require.Equal(t, []string{"run.sh"}, tree(t, remote), "the run's own directory is gone")
	}
	require.Equal(t, "echo of another", string(mustRead(t, precious)))
	w.down()
	w.cleanSlate()
}

// Failure bank 85: what fails is told apart, and is never 0.
func TestFailuresOfExecAreToldApart(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	for line, status := range map[string]int{"exit 255": 255, "exit 3": 3, "kill -KILL $$": 137, "false | true": 0, "true | false": 1, "nosuchprogram-of-castra": 127} {
		_, err := w.exec("web", line, "")
		if status == 0 {
			require.NoError(t, err, line)
			continue
		}
		require.Equal(t, status, exitStatus(err), line)
		require.NotContains(t, explain(err), "next:", "what the user's own command says is all")
	}
	w.replace("web-0", "refuse-login")
	_, err := w.exec("web", "exit 3", "")
	require.Error(t, err)
	require.Contains(t, []int{exitUnavailable, exitFailed}, exitStatus(err), "not the command's: %v", err)
	require.ErrorContains(t, err, "exec web-0: connect: ")
	require.NotEmpty(t, hint(err))
	w.down()
	_, err = w.exec("web", "true", "")
	require.Equal(t, exitNoInput, exitStatus(err))
}

// Failure bank 89: whatever became of its files, a workspace can be looked at,
// taken down, cleaned, and used again.
func TestDamagedFilesOfAWorkspace(t *testing.T) {
	for _, file := range []string{"workspace.json", "session.json", "config_snapshot.toml"} {
		for name, damage := range map[string]func(good string) string{
			"empty": func(string) string { return "" }, "cut": func(good string) string { return good[:len(good)/2] },
			"null": func(string) string { return "null" }, "list": func(string) string { return "[]" },
			"garbage behind": func(good string) string { return good + "}{\x00" },
		} {
			t.Run(file+" "+name, func(t *testing.T) {
				w := newWorld(t, patient, vm("web"))
				shop := w.second("shop")
				shop.up()
				w.up()
				path := filepath.Join(w.layout().Root, "metadata", file)
				require.NoError(t, os.WriteFile(path, []byte(damage(string(mustRead(t, path)))), 0o600))
				all := w.everywhere(Selection{})
				seen := strings.Join(w.seen(all), "\n")
				require.Contains(t, seen, "web-0 running")
				require.Contains(t, seen, "shop shop-0 running", "it hides no other")
				_, err := all.Ports(t.Context())
				require.NoError(t, err)
				require.Equal(t, "running", w.status("web-0").State)
				require.NoError(t, w.open().Logs(t.Context(), LogOptions{}, io.Discard))
				require.ErrorAs(t, w.open().Clean(t.Context()), new(*RunningError))
				require.NoError(t, all.Down(t.Context(), w.events))
				require.Empty(t, w.running())
				require.NoError(t, os.WriteFile(path, []byte(damage("xxxx")), 0o600))
				require.NoError(t, w.open().Clean(t.Context()))
				w.up()
				require.NotEqual(t, damage("xxxx"), string(mustRead(t, path)), "it is written anew")
				w.down()
				w.cleanSlate()
			})
		}
	}
}

// Failure bank 95, 96: logs of any size and content.
func TestMonstrousLogs(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up()
	serial := w.layout().SerialLog("web-0")
	require.NoError(t, os.Truncate(serial, 2<<30)) // a hole of NUL bytes
	appendTo(t, serial, "\n"+strings.Repeat("x", 50<<20)+"\n\x1b]0;title\x07first\nlast\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	out := w.logs(LogOptions{VM: "web", Kinds: []string{"serial"}, Tail: 3})
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100<<20), "bytes")
	require.Less(t, len(out), 8<<20, "a long line is cut")
	require.True(t, strings.HasSuffix(out, "first\nweb-0 serial    last\n"), "%.200q", out[max(0, len(out)-200):])
	require.NotContains(t, out, "\x1b")
	require.NotContains(t, out, "\x00")
	require.NotContains(t, w.logs(LogOptions{}), "\x07")
	require.NoError(t, os.Truncate(serial, 0))
	w.down()
}

// Failure bank 97: which run a line is of.
func TestLogsOfOneRunAfterAnother(t *testing.T) {
	w := newWorld(t, patient)
	other := vm("db")
	w.configure(patient, w.bootstrapped("web", "echo first try; exit 3"), other)
	require.Error(t, w.open().Up(t.Context(), UpOptions{VMs: []string{"web"}}))
	text := w.logs(LogOptions{VM: "web"})
	require.Regexp(t, `(?s)web-0 bootstrap --- run [0-9a-f]+, .*web-0 bootstrap first try\nweb-0 bootstrap --- failed in apply: .*3`, text)
	require.Equal(t, "no logs yet: db-0\n", w.logs(LogOptions{VM: "db"}), "it never ran")
	w.configure(patient, w.bootstrapped("web", "echo second try"), other)
	w.up("web")
	text = w.logs(LogOptions{VM: "web", Kinds: []string{"bootstrap"}})
	require.Equal(t, 2, strings.Count(text, "web-0 bootstrap --- run "))
	require.Less(t, strings.Index(text, "first try"), strings.Index(text, "second try"))
	w.down()
	require.Equal(t, text, w.logs(LogOptions{VM: "web", Kinds: []string{"bootstrap"}}), "as before")
	require.Error(t, w.open().Logs(t.Context(), LogOptions{VM: "nosuch"}, io.Discard))
}

// The copy of a project, its state in the home: nothing it does touches the
// original's VM.
func TestCopyOfAProject(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	pid, overlay := w.status("web-0").PID, w.overlay("web-0")
	twin := *w
	twin.dir += "-copy"
	require.NoError(t, os.CopyFS(twin.dir, os.DirFS(w.dir)))
	require.NotEqual(t, w.open().StateRoot(), twin.open().StateRoot())
	force := twin.options()
	force.Force = true
	for name, run := range map[string]func(ctx context.Context) error{
		"down":       twin.open().Down,
		"clean":      twin.openWith(force).Clean,
		"up":         func(ctx context.Context) error { return twin.open().Up(ctx, UpOptions{}) },
		"down again": func(ctx context.Context) error { twin.up(); return twin.open().Down(ctx) },
		"prune":      func(ctx context.Context) error { _, err := twin.one(true).Prune(ctx, PruneOptions{}); return err },
	} {
		require.NoError(t, run(t.Context()), name)
		require.Equal(t, pid, w.status("web-0").PID, name)
		require.Equal(t, "running", w.status("web-0").State, name)
		require.FileExists(t, overlay, name)
	}
	twin.down()
	require.Equal(t, []int{pid}, w.running())
	w.down()
	w.cleanSlate()
	twin.cleanSlate()
}

// The same where the state is in the repository, and was copied along.
func TestCopyOfAProjectWithItsState(t *testing.T) {
	w := newWorld(t, patient)
	shop := w.second("shop")
	shop.up()
	pid, overlay := shop.status("shop-0").PID, shop.session().VMs["shop-0"].Overlay.Path
	twin := *shop
	twin.dir += "-copy"
	require.NoError(t, os.CopyFS(twin.dir, regularFiles{os.DirFS(shop.dir)}))
	require.NoError(t, os.Chmod(filepath.Join(twin.dir, ".castra"), 0o700))
	unharmed := func(what string) {
		t.Helper()
		require.Equal(t, pid, shop.status("shop-0").PID, what)
		require.Equal(t, "running", shop.status("shop-0").State, what)
		require.FileExists(t, overlay, what)
	}
	require.NotContains(t, twin.states(), "shop-0 running")
	require.NoError(t, twin.open().Up(t.Context(), UpOptions{}), "the copy has VMs of its own")
	require.Len(t, w.running(), 2)
	unharmed("up")
	require.Equal(t, []string{"shop-0 running"}, twin.states())
	require.Len(t, w.everywhere(Selection{}).Projects, 2, "both are seen")
	twin.down()
	unharmed("down")
	_, err := twin.one(true).Prune(t.Context(), PruneOptions{})
	require.NoError(t, err)
	unharmed("prune -force")
	require.NoError(t, w.everywhere(Selection{}).Down(t.Context(), w.events))
	require.Empty(t, w.running())
}
