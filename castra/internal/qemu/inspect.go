package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qmp"
)

// monitorLimit bounds one conversation with a monitor. QEMU answers within
// milliseconds; one that does not is stopped, or another client has it.
const monitorLimit = 2 * time.Second

// Target is a VM as recorded, to be found and ended.
type Target struct {
	Name    string
	Pidfile string
	Monitor string // absolute path of the QMP socket
	UUID    string // "" where no record tells it
	Overlay string // "" where it cannot be being launched, or no record tells it
}

// State is what can be seen of a VM from outside.
type State struct {
	PID     int    // 0: not alive
	Tracked bool   // by the lock on its pidfile; else by the owner of its monitor
	Status  string // QEMU's word: running, paused, io-error, …; "" when it did not answer
	Err     error  // why it did not answer; of one that was not found, what is wrong with its pidfile
	// Launching: none was found, and yet one was launched that has not ended. One that ends may be taken for that for a moment: the
	// kernel (6.18) gives back the lock on its pidfile first.
	Launching bool
}

// Alive tells that a QEMU process was found.
func (s State) Alive() bool { return s.PID != 0 }

// Inspect looks for the VM's process and asks its monitor how it does. It
// changes nothing.
func Inspect(ctx context.Context, t Target) State {
	var s State
	pid, err := HolderVM(t.Pidfile)
	if err != nil {
		s.Err = err
	}
	ctx, cancel := context.WithTimeout(ctx, monitorLimit)
	defer cancel()
	mon, monErr := openMonitor(ctx, t)
	if monErr == nil {
		defer mon.Close()
	}
	switch {
	case pid != 0 && monErr == nil && mon.Peer() != 0 && mon.Peer() != pid:
		monErr = foreignMonitor(t, mon.Peer(), pid)
	case pid == 0 && monErr == nil && t.servedBy(mon.Peer()):
		pid = mon.Peer() // the pidfile was removed under a living VM
	}
	if pid == 0 {
		s.Launching = beingLaunched(t.Overlay)
		return s
	}
	s.PID, s.Tracked, s.Err = pid, isHeldBy(t.Pidfile, pid), monErr
	if monErr == nil {
		s.Status, s.Err = queryStatus(ctx, mon)
	}
	return s
}

func foreignMonitor(t Target, peer, pid int) error {
	return fmt.Errorf("monitor %s: served by pid %d, and the VM is pid %d", t.Monitor, peer, pid)
}

// servedBy tells that the process behind the VM's monitor is the VM: it runs
// in the workspace. Where that cannot be seen, it has to know the UUID.
func (t Target) servedBy(peer int) bool {
	in, known := host.RunsIn(peer, filepath.Dir(t.Monitor))
	return in || !known && t.UUID != ""
}

func isHeldBy(pidfile string, pid int) bool {
	now, err := HolderVM(pidfile)
	return err == nil && now == pid
}

// openMonitor connects and makes sure that the VM at the other end is the one
// meant: a second QEMU may have taken over the socket's path.
func openMonitor(ctx context.Context, t Target) (*qmp.Client, error) {
	mon, err := qmp.Dial(ctx, t.Monitor)
	if err != nil {
		return nil, err
	}
	var id struct{ UUID string }
	if err := mon.Execute(ctx, "query-uuid", nil, &id); err != nil {
		mon.Close()
		return nil, err
	}
	if t.UUID != "" && !strings.EqualFold(id.UUID, t.UUID) {
		mon.Close()
		return nil, fmt.Errorf("monitor %s: belongs to another VM (UUID %s)", t.Monitor, id.UUID)
	}
	return mon, nil
}

func queryStatus(ctx context.Context, mon *qmp.Client) (string, error) {
	var st struct{ Status string }
	err := mon.Execute(ctx, "query-status", nil, &st)
	return st.Status, err
}

// Forwards asks QEMU which rules are in force, with the ports that the kernel
// chose. QEMU takes its pidfile before it opens its monitor (7.2 does), so the
// socket is waited for while the VM is alive.
func Forwards(ctx context.Context, t Target) ([]Forward, error) {
	ctx, cancel := context.WithTimeout(ctx, StartLimit)
	defer cancel()
	mon, err := awaitMonitor(ctx, t)
	if err != nil {
		return nil, err
	}
	defer mon.Close()
	return askForwards(ctx, mon)
}

func askForwards(ctx context.Context, mon *qmp.Client) ([]Forward, error) {
	text, err := mon.HumanMonitor(ctx, "info usernet")
	if err != nil {
		return nil, err
	}
	return parseUsernet(text)
}

func awaitMonitor(ctx context.Context, t Target) (*qmp.Client, error) {
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		mon, err := openMonitor(ctx, t)
		if err == nil || !noMonitor(err) {
			return mon, err
		}
		if pid, holdErr := Holder(t.Pidfile); holdErr != nil || pid == 0 {
			return nil, errors.Join(err, holdErr)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// parseUsernet reads the HOST_FORWARD lines of `info usernet`, which QEMU
// (net/slirp) prints as: protocol[state] fd address port address port queues.
func parseUsernet(text string) ([]Forward, error) {
	var forwards []Forward
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.HasSuffix(fields[0], "[HOST_FORWARD]") {
			continue
		}
		hostIP := fields[2]
		if hostIP == "*" { // as it writes 0.0.0.0
			hostIP = "0.0.0.0"
		}
		hostPort, err1 := strconv.ParseUint(fields[3], 10, 16)
		guestPort, err2 := strconv.ParseUint(fields[5], 10, 16)
		if err := errors.Join(err1, err2); err != nil || net.ParseIP(hostIP) == nil {
			return nil, fmt.Errorf("info usernet: unknown line %q", strings.TrimSpace(line))
		}
		protocol, _, _ := strings.Cut(fields[0], "[")
		forwards = append(forwards, Forward{hostIP, int(hostPort), int(guestPort), strings.ToLower(protocol)})
	}
	return forwards, nil
}

// noMonitor tells that nobody listens at the monitor's path.
func noMonitor(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}
