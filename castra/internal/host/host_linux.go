package host

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootID names this boot of the computer; "" where unknown. A process number
// recorded under another boot ID means nothing.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// TotalMemory is the memory of this computer in bytes.
func TotalMemory() (uint64, error) { return meminfo("MemTotal:") }

// AvailableMemory is the memory in bytes that new processes can use without
// swapping (MemAvailable of /proc/meminfo).
func AvailableMemory() (uint64, error) { return meminfo("MemAvailable:") }

// CPU names the model of this computer's CPU with a digest of its features; ""
// where unknown.
func CPU() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	first, _, _ := bytes.Cut(b, []byte("\n\n"))
	var model string
	features := sha256.New()
	for line := range strings.Lines(string(first)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name", "CPU part":
			model = strings.TrimSpace(value)
		case "flags", "Features", "microcode":
			features.Write([]byte(value))
		}
	}
	return fmt.Sprintf("%s %x", model, features.Sum(nil)[:8])
}

func meminfo(key string) (uint64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return parseMeminfo(f, key)
}

func parseMeminfo(table io.Reader, key string) (uint64, error) {
	for s := bufio.NewScanner(table); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) >= 2 && fields[0] == key {
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil || kib > math.MaxUint64>>10 {
				return 0, fmt.Errorf("/proc/meminfo: %s %q is no size", key, fields[1])
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("/proc/meminfo: no %s line", key)
}

// WaitExit returns when the process has ended (a zombie has), or with ctx's
// error. The wait goes through the handle, so it ends within the same
// millisecond, for processes that are not our children too, and also when the
// number has gone to another process by now.
func (p *Process) WaitExit(ctx context.Context) error {
	var ended bool
	var failed error
	err := p.proc.WithHandle(func(handle uintptr) { ended, failed = pollHandle(ctx, int(handle)) })
	switch {
	case errors.Is(err, os.ErrProcessDone), ended:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil, failed != nil: // a kernel without pidfds
		return p.pollExit(ctx)
	}
	return nil
}

// pollTurn is short, so that a cancelled ctx is seen.
const pollTurn = 50 * time.Millisecond

// pollHandle waits until the process behind a pidfd has ended, or ctx has.
func pollHandle(ctx context.Context, fd int) (ended bool, err error) {
	for ctx.Err() == nil {
		turn := pollTurn
		if deadline, ok := ctx.Deadline(); ok {
			turn = min(turn, max(time.Until(deadline), 0)+time.Millisecond)
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor is small
		if n, err := unix.Poll(fds, int(turn/time.Millisecond)); n > 0 {
			return true, nil
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
	}
	return false, nil
}

// ended tells that no process with this PID runs; a zombie has ended. While
// other threads than the first live, so do the files and locks of a process
// whose state is that of a zombie already.
func ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	if state := stateOf(b); state != 'Z' && state != 'X' {
		return false
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err != nil || len(threads) <= 1
}

// stateOf reads a process's state out of its stat; 0 where there is none (format: proc_pid_stat(5)). The command name may hold
// spaces and parentheses: the state follows the last one.
func stateOf(stat []byte) byte {
	if fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]); len(fields) > 0 {
		return fields[0][0]
	}
	return 0
}
