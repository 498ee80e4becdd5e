package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pumpsOf are the processes that carry into the log: shells, and what they run.
func pumpsOf(t *testing.T, log string) (shells, children []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	parents := map[int]int{}
	for _, dir := range all {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		if _, rest, ok := strings.Cut(string(stat), ") "); ok {
			fields := strings.Fields(rest)
			if fields[0] == "Z" {
				continue
			}
			parents[pid], _ = strconv.Atoi(fields[1])
		}
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if strings.Contains(string(cmdline), "\x00castra-log\x00"+log+"\x00") {
			shells = append(shells, pid)
		}
	}
	for _, shell := range shells {
		for pid, parent := range parents {
			if parent == shell {
				children = append(children, pid)
			}
		}
	}
	return shells, children
}

// awaitPump waits until the pump reads.
func awaitPump(t *testing.T, log string) (shell, child int) {
	t.Helper()
	require.Eventually(t, func() bool {
		shells, children := pumpsOf(t, log)
		if len(shells) != 1 || len(children) != 1 {
			return false
		}
		shell, child = shells[0], children[0]
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child))
		return string(name) == "dd\n"
	}, patience, 5*time.Millisecond)
	return shell, child
}

// A pump has nothing of this process that it does not need: no lock, no secret, no directory to hold.
func TestPumpInheritsNothing(t *testing.T) {
	t.Setenv("CASTRA_TEST_SECRET", "canary")
	held, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer held.Close()
	_, log := pumping(t, "a.log", 4*kib)
	shell, child := awaitPump(t, log)
	for _, pid := range []int{shell, child} {
		proc := fmt.Sprintf("/proc/%d/", pid)
		entries, err := os.ReadDir(proc + "fd")
		require.NoError(t, err)
		input, err := os.Readlink(proc + "fd/0")
		require.NoError(t, err)
		require.Contains(t, input, "pipe:")
		for _, e := range entries { // a shell saves some of the three beyond them
			link, err := os.Readlink(proc + "fd/" + e.Name())
			require.NoError(t, err)
			if outer, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && outer == link && isLeft(e.Name()) {
				continue
			}
			require.Contains(t, []string{input, log, os.DevNull}, link)
		}
		env, err := os.ReadFile(proc + "environ")
		require.NoError(t, err)
		require.NotContains(t, string(env), "canary")
		cwd, err := os.Readlink(proc + "cwd")
		require.NoError(t, err)
		require.Equal(t, "/", cwd)
	}
}

// isLeft tells that a descriptor was left open, for everyone, by what started the tests.
func isLeft(fd string) bool {
	n, _ := strconv.Atoi(fd)
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// F-1: what cannot be written is dropped, and nothing spins for it; a log that can be written again goes on.
func TestPumpOfAFullDisk(t *testing.T) {
	full := filepath.Join(t.TempDir(), "a.log")
	require.NoError(t, os.Symlink("/dev/full", full)) // each write fails with ENOSPC
	p, err := pumpTo(t.Context(), full, 4*kib)
	require.NoError(t, err)
	p.write(t, numbered(64*kib)) // many times what a pipe holds
	requireIdle(t, full)
	require.NoError(t, os.Remove(full))
	require.Eventually(t, func() bool {
		p.write(t, "room again\n")
		got, _ := os.ReadFile(full)
		return strings.HasSuffix(string(got), "room again\n")
	}, patience, 5*time.Millisecond)
	p.in.Close()
	ended(t, p)
}

// F-1: the directory may go while QEMU runs.
func TestPumpWithoutItsDirectory(t *testing.T) {
	p, log := pumping(t, "a.log", 4*kib)
	p.write(t, "x")
	reads(t, log, "x")
	require.NoError(t, os.RemoveAll(filepath.Dir(log)))
	p.write(t, numbered(64*kib))
	requireIdle(t, log)
	require.NoDirExists(t, filepath.Dir(log))
	p.in.Close()
	ended(t, p)
}

// requireIdle waits until the pump has read all, and sees that the same programs then wait for more.
func requireIdle(t *testing.T, log string) {
	t.Helper()
	same, last := 0, ""
	require.Eventually(t, func() bool {
		shells, children := pumpsOf(t, log)
		slices.Sort(children)
		now := fmt.Sprint(shells, children)
		if same++; now != last {
			same, last = 0, now
		}
		return same == 20
	}, patience, 5*time.Millisecond)
}

// The limit is the kernel's: it holds where the shell is killed, and the writer gets an error then, and is not held up.
func TestPumpKilled(t *testing.T) {
	p, log := pumping(t, "a.log", 64*kib)
	shell, child := awaitPump(t, log)
	require.NoError(t, syscall.Kill(shell, syscall.SIGKILL))
	ended(t, p)
	require.Eventually(t, func() bool { // Go's writes give EPIPE, as QEMU's do
		_, err := p.in.WriteString(numbered(kib))
		return err != nil
	}, patience, time.Millisecond)
	require.EqualValues(t, 64*kib, size(t, log))
	require.NoFileExists(t, log+".1")
	require.Eventually(t, func() bool { return syscall.Kill(child, 0) != nil }, patience, 5*time.Millisecond)
}
