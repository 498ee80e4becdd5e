package castra

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/sweep"
)

// sweptName is the name under which the test binary is a small castra program:
// one verb, as order says.
const (
	sweptName = "castra-swept"
	sweptEnv  = "CASTRA_SWEPT"
)

// order is what that program is to do.
type order struct {
	Verb    string
	Options Options
	Prune   PruneOptions
}

// carryOut does it.
func (o order) carryOut(ctx context.Context, hear event.Reporter) error {
	if o.Verb == "prune" {
		w, err := OpenWorkspaces(o.Options, Selection{}, hear)
		if err != nil {
			return err
		}
		_, err = w.Prune(ctx, o.Prune)
		return err
	}
	p, err := Open(o.Options)
	if err != nil {
		return err
	}
	p.Reporter = hear
	switch o.Verb {
	case "up":
		return p.Up(ctx, UpOptions{})
	case "down":
		return p.Down(ctx)
	case "clean":
		return p.Clean(ctx)
	default:
		return fmt.Errorf("verb %q", o.Verb)
	}
}

// printer prints messages as mage does, roughly.
type printer struct{}

func (printer) Report(r event.Record) {
	if m, ok := r.Event.(event.Message); ok {
		fmt.Printf("%s: %s\n  next: %s\n", m.Level, m.Text, m.Hint)
	}
}

// swept is the small program; it gives its exit status.
func swept() int {
	var o order
	err := json.Unmarshal([]byte(os.Getenv(sweptEnv)), &o)
	if err == nil {
		err = exit(o.carryOut(context.Background(), printer{}))
	}
	if err != nil {
		fmt.Printf("error: %v\n", err)
		return exitStatus(err)
	}
	return 0
}

// trace runs the small program under the tracer, and gives what it said.
func (w *world) trace(o order, plan sweep.Plan) (sweep.Result, string) {
	w.Helper()
	self, err := os.Executable()
	require.NoError(w, err)
	text, err := json.Marshal(o)
	require.NoError(w, err)
	out, err := os.Create(filepath.Join(w.TempDir(), "said"))
	require.NoError(w, err)
	defer out.Close()
	r, err := sweep.Run(sweep.Command{
		Path: self, Args: []string{sweptName}, Dir: w.dir, Output: out,
		Env: append(os.Environ(), sweptEnv+"="+string(text), "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=2"),
	}, plan)
	require.NoError(w, err)
	return r, string(mustRead(w.T, out.Name()))
}

// newSwept is a world for tests that run side by side: whose installs the
// fakes and sets PATH is their common parent.
func newSwept(t *testing.T, fakes string) *world {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	w := &world{T: t, dir: filepath.Join(root, "project"), home: filepath.Join(root, "home"), fakes: fakes, events: &recorder{}, warm: warmOff}
	require.NoError(t, os.Mkdir(w.dir, 0o700))
	w.base = filepath.Join(w.dir, "base.qcow2")
	return w
}

// qemus are the processes that have their working directory in this world: the
// name of the VM by the pid, "" of what is no QEMU.
func (w *world) qemus() map[int]string {
	w.Helper()
	root := filepath.Dir(w.dir) + string(filepath.Separator)
	found := map[int]string{}
	entries, err := os.ReadDir("/proc")
	require.NoError(w, err)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if err != nil || !strings.HasPrefix(cwd+"/", root) { // of a zombie it cannot be read
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		found[pid] = ""
		for _, word := range strings.Split(string(line), "\x00") {
			if name, ok := strings.CutPrefix(word, "guest="); ok {
				found[pid], _, _ = strings.Cut(name, ",")
			}
		}
	}
	return found
}

// tellsTruth holds status against the processes that run. A QEMU that is just
// being born or is dying is given a moment; a lie that lasts is one.
func (w *world) tellsTruth() []string {
	w.Helper()
	var states []string
	var lie string
	for end := time.Now().Add(patience); time.Now().Before(end); {
		before := w.qemus()
		s, err := w.open().Status(w.Context())
		require.NoError(w, err)
		after := w.qemus()
		lie = ""
		states = nil
		for _, vm := range s.VMs {
			states = append(states, vm.Name+" "+vm.State)
			if said := vm.State != "stopped" && vm.State != "crashed"; said != has(before, vm) || said != has(after, vm) {
				lie = fmt.Sprintf("status says that %s is %s (pid %d); these run: %v, then %v", vm.Name, vm.State, vm.PID, before, after)
			}
		}
		if lie == "" {
			return states
		}
		time.Sleep(poll)
	}
	require.Fail(w, lie)
	return nil
}

func has(running map[int]string, vm VMStatus) bool {
	if vm.PID != 0 {
		return running[vm.PID] == vm.Name
	}
	for _, name := range running {
		if name == vm.Name || name == "" { // not yet QEMU
			return true
		}
	}
	return false
}

// died tells that the small program was killed.
func died(r sweep.Result) bool { return r.Status.Signaled() && r.Status.Signal() == syscall.SIGKILL }

// image writes the base image.
func (w *world) image() { qemutest.WriteImage(w, w.base, 1<<20) }
