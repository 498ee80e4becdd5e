package castra

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/soak"
	"castra.example/castra/castra/internal/sweep"
	"castra.example/castra/castra/internal/workspace"
)

// A2: an up that gets a signal at any time leaves no half of a set that passes for the whole. Ctrl-C takes down what it has started;
// the others end the command at once, and the next one goes on.
func TestSignalledUpSoak(t *testing.T) {
	magefiles.dir = t.TempDir()
	compiled(t, "root")
	began := time.Now()
	unharmed := mageWorld(t, vm("web"), vm("db"))
	require.Zero(t, unharmed.mage("root", "up").status)
	usual := time.Since(began)
	require.Zero(t, unharmed.mage("root", "down").status)
	tried := 0
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		for i := range soak.N(2, 20) {
			delay := rand.N(usual)
			t.Run(fmt.Sprintf("%s %d after %s", unix.SignalName(signal), i, delay), func(t *testing.T) {
				w := mageWorld(t, vm("web"), vm("db"))
				cmd, out := w.background("up")
				time.Sleep(delay)
				require.NoError(t, syscall.Kill(-cmd.Process.Pid, signal)) // as a terminal does
				err := cmd.Wait()
				states := w.tellsTruth()
				all := strings.Join(states, ", ") == "web-0 running, db-0 running"
				switch {
				case err == nil:
					require.True(t, all, "up has ended well, and status says: %v", states)
				case signal == syscall.SIGINT:
					require.Equal(t, []string{"web-0 stopped", "db-0 stopped"}, states)
					require.Empty(t, w.running())
					require.False(t, out.has("cleanup timeout exceeded")())
				}
				w.goOn(onward[i%len(onward)])
				w.cleanSlate()
			})
			tried++
		}
	}
	soak.AtLeast(t, "A2", "signals to up, at random times", 60, float64(tried))
}

// A4: whenever its QEMU is killed, the VM is not said to run, and what it left goes with the next command. The up is of this process,
// which has to wait for what it has started: a zombie is nobody that runs.
func TestCrashesSoak(t *testing.T) {
	n := soak.N(4, 20)
	for i := range n {
		w := newWorld(t, patient, vm("web"), vm("db"))
		ended := make(chan error)
		go func() { ended <- w.open().Up(context.WithoutCancel(w.Context()), UpOptions{}) }()
		require.Eventually(t, func() bool { return len(w.running()) > 0 }, patience, poll)
		time.Sleep(rand.N(300 * time.Millisecond))
		victims := w.running()
		if len(victims) == 0 {
			require.NoError(t, <-ended)
			continue
		}
		victim := victims[rand.IntN(len(victims))]
		p, err := os.FindProcess(victim)
		require.NoError(t, err)
		require.NoError(t, p.Kill())
		if err := <-ended; err != nil {
			require.Regexp(t, "^up (web|db)-0: ", err.Error())
			require.Empty(t, w.running(), "the other was rolled back")
		} else {
			require.Eventually(t, func() bool { return len(w.running()) == 1 }, patience, poll)
			crashed := 0
			for _, state := range w.tellsTruth() {
				if strings.HasSuffix(state, " crashed") {
					crashed++
				}
			}
			require.Equal(t, 1, crashed)
		}
		w.goOn(onward[i%len(onward)])
		w.cleanSlate()
	}
	soak.AtLeast(t, "A4", "QEMUs killed at random times", 20, float64(n))
}

// A5: after a reboot all are stopped, and no command sends a signal to whoever has the number of a VM now.
func TestRebootSoak(t *testing.T) {
	stageFakes(t)
	tried, signals := 0, 0
	stranger := innocent(t).Process
	pidfiles := []string{strconv.Itoa(stranger.Pid) + "\n", "1\n", strconv.Itoa(os.Getpid()) + "\n", "-1\n", ""}
	verbs := []string{"up", "down", "clean", "prune"}
	for i, content := range pidfiles {
		for j, verb := range verbs {
			if !soak.Full() && j != i%len(verbs) {
				continue
			}
			w := newSwept(t, "")
			w.configure(patient, vm("web"))
			w.image()
			w.up()
			w.crashOf("web-0")
			ws, err := workspace.Open(w.layout().Root)
			require.NoError(t, err)
			s := w.session()
			r := s.VMs["web-0"]
			r.BootID, r.PID = "another-boot", stranger.Pid
			s.VMs["web-0"] = r
			require.NoError(t, ws.SaveSession(s))
			require.NoError(t, os.WriteFile(ws.Pidfile("web-0"), []byte(content), 0o600))
			require.Equal(t, "stopped", w.status("web-0").State)
			result, said := w.trace(order{Verb: verb, Options: w.options()}, sweep.Plan{})
			require.Zero(t, result.Status.ExitStatus(), said)
			for _, c := range result.Calls {
				if strings.Contains(c.Name, "kill") || strings.Contains(c.Name, "signal") {
					signals++
				}
			}
			if verb == "up" {
				require.True(t, w.session().VMs["web-0"].Launched.After(r.Launched))
				require.Equal(t, host.BootID(), w.session().VMs["web-0"].BootID)
			} else {
				require.NoFileExists(t, r.Overlay.Path)
			}
			w.goOn(onward[1])
			tried++
		}
	}
	require.NoError(t, stranger.Signal(syscall.Signal(0)), "it lives")
	soak.AtLeast(t, "A5", "reboots with the number of a VM in other hands", 20, float64(tried))
	soak.AtMost(t, "A5", "signals sent after a reboot", 0, float64(signals))
}
