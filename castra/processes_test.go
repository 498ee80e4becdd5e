package castra

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/event"
)

// envErrand makes of the re-executed test binary a process that does one
// command, as mage would.
const envErrand = "CASTRA_TEST_ERRAND"

// errand is what such a process is to do.
type errand struct {
	Verb    string
	VMs     []string // of up
	Options Options
	Prune   PruneOptions
	All     bool // prune: of all workspaces
}

// outcome is what became of it. Times are in nanoseconds of a clock that all
// processes share.
type outcome struct {
	Began    int64
	Accepted int64 // 0: it was never the only writer
	Ended    int64
	Fault    string
	Hint     string
	Exit     int
	Running  []string // that a refusal names
	Status   *ProjectStatus
	Ports    *ProjectPorts
	Pruned   *PruneReport
	Events   []event.Record
}

func init() {
	var e errand
	if json.Unmarshal([]byte(os.Getenv(envErrand)), &e) != nil {
		return
	}
	_ = os.Unsetenv(envErrand) // or the QEMUs that it starts would do the same
	err := json.NewEncoder(os.Stdout).Encode(e.run())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	syscall.Exit(0) // with the race detector, os.Exit would take a second
}

func clock() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return now.Nano()
}

func (e errand) run() outcome {
	heard := &recorder{}
	var out outcome
	heard.on(func(ev event.Event) {
		if ev.Kind() == "command.accepted" && out.Accepted == 0 {
			out.Accepted = clock()
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute)
	defer cancel()
	out.Began = clock()
	err := e.command(ctx, heard, &out)
	out.Ended = clock()
	out.Events = heard.all()
	if err == nil {
		return out
	}
	out.Fault, out.Hint, out.Exit = err.Error(), hint(err), exitStatus(err)
	for _, vm := range vmErrors(err) {
		out.Fault += "\n" + strings.Join(vm.QEMU, "\n")
	}
	if running := new(RunningError); errors.As(err, &running) {
		out.Running = running.VMs
	}
	return out
}

func vmErrors(err error) (all []*VMError) {
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case *VMError:
		return []*VMError{e}
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			all = append(all, vmErrors(one)...)
		}
	}
	return all
}

func (e errand) command(ctx context.Context, heard *recorder, out *outcome) error {
	if e.Verb == "prune" {
		ws, err := OpenWorkspaces(e.Options, Selection{All: e.All}, heard)
		if err == nil {
			out.Pruned, err = ws.Prune(ctx, e.Prune)
		}
		return err
	}
	p, err := Open(e.Options)
	if err != nil {
		return err
	}
	p.Reporter = heard
	switch e.Verb {
	case "up":
		return p.Up(ctx, UpOptions{VMs: e.VMs})
	case "down":
		return p.Down(ctx)
	case "clean":
		return p.Clean(ctx)
	case "status":
		out.Status, err = p.Status(ctx)
	case "ports":
		out.Ports, err = p.Ports(ctx)
	default:
		err = fmt.Errorf("no such verb: %q", e.Verb)
	}
	return err
}

// start runs the errand as a process of its own, and gives what waits for its
// outcome. It may be called from any goroutine.
func (w *world) start(e errand) (cmd *exec.Cmd, wait func() outcome) {
	task, err := json.Marshal(e)
	assert.NoError(w, err)
	cmd = exec.Command(os.Args[0])
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), envErrand+"="+string(task)), &stdout, &stderr
	cmd.WaitDelay = patience
	err = cmd.Start()
	return cmd, func() (out outcome) {
		if err == nil {
			err = cmd.Wait()
		}
		if err == nil {
			err = json.NewDecoder(&stdout).Decode(&out)
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended without a word")
		}
		assert.NoError(w, err, "%s: %s", e.Verb, stderr.String())
		assert.NotContains(w, stderr.String(), "DATA RACE")
		return out
	}
}

// errand does a verb of the world's project in a process of its own.
func (w *world) errand(verb string, vms ...string) outcome {
	_, wait := w.start(errand{Verb: verb, VMs: vms, Options: w.options()})
	return wait()
}

// journalIsWhole: the workspace's journal is of whole lines, and of one command
// after the other.
func (w *world) journalIsWhole() {
	w.Helper()
	f, err := os.Open(w.layout().EventLog())
	if os.IsNotExist(err) { // a clean was last
		return
	}
	require.NoError(w, err)
	defer f.Close()
	at := ""
	for i, r := range readRecords(w, f) {
		switch e := r.Event.(type) {
		case event.CommandAccepted:
			require.Empty(w, at, "line %d: %s begins", i+1, e.Command)
			at = e.Command
		case event.CommandCompleted:
			require.Equal(w, at, e.Command, "line %d", i+1)
			at = ""
		case event.CommandFailed:
			require.Equal(w, at, e.Command, "line %d", i+1)
			at = ""
		case event.Summary:
			require.Empty(w, at, "line %d", i+1)
		default:
			require.NotEmpty(w, at, "line %d: %s", i+1, r.Event.Kind())
		}
	}
}
