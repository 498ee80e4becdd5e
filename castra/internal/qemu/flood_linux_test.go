package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/qmp"
	"castra.example/castra/castra/internal/soak"
)

// stateMost is what a VM's logs, both kinds with what was set aside of them, and the rest of its state may take, in bytes.
const stateMost = 33 << 20

// floodSerial is the code of a boot sector: it writes itself to the first serial port, for ever, and does not ask whether that has room.
var floodSerial = []byte{
	0x31, 0xc0, // xor ax, ax
	0x8e, 0xd8, // mov ds, ax
	0xfc,             // cld
	0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xbe, 0x00, 0x7c, // again: mov si, 0x7c00
	0xb9, 0x00, 0x02, // mov cx, 512
	0xf3, 0x6e, // rep outsb
	0xeb, 0xf6, // jmp again
}

// flooding is a VM that floods its logs, which had lengths near their limits before.
type flooding struct {
	Target
	serial, log string
	pid         int
	most        int64 // bytes of its directory so far
	turns       int   // how often the serial log was seen to have been set aside
	aside       os.FileInfo
}

func floods(t *testing.T, binary string) *flooding {
	t.Helper()
	f := &flooding{}
	f.Target = launched(t, binary, "running", func(s *Spec) {
		f.serial, f.log = s.SerialLog, filepath.Join(s.Dir, "qemu.log")
		for path, size := range map[string]int64{f.serial: serialLogLimit - 32*kib, f.serial + ".1": serialLogLimit, f.log + ".1": qemuLogLimit} {
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("earlier\n", int(size/8))), 0o600))
		}
		f.aside = must(os.Stat(f.serial + ".1"))
	})
	f.pid = must(Holder(f.Pidfile))
	return f
}

// look measures what is on disk.
func (f *flooding) look(t *testing.T) {
	t.Helper()
	var sum int64
	for _, e := range must(os.ReadDir(filepath.Dir(f.Pidfile))) {
		if info, err := e.Info(); err == nil { // or it was set aside meanwhile
			sum += info.Size()
		}
	}
	f.most = max(f.most, sum)
	if now, err := os.Stat(f.serial + ".1"); err == nil && !os.SameFile(now, f.aside) {
		f.turns, f.aside = f.turns+1, now
	}
}

// rss is the resident memory of the process, in bytes.
func rss(t *testing.T, pid int) (bytes int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &bytes); err == nil {
			return bytes * kib
		}
	}
	require.Fail(t, "no VmRSS")
	return 0
}

// finish takes the VM down and holds the bars.
func (f *flooding) finish(t *testing.T, who string) {
	t.Helper()
	began := time.Now()
	outcome, _ := stopped(t, f.Target, Ladder{Graceful: 100 * time.Millisecond, Terminate: patience, Kill: patience})
	soak.Figure(t, "F-1", who+": seconds until a VM that floods is down", 3, time.Since(began).Seconds(), "s")
	require.Equal(t, Terminated, outcome, "QEMU heeds")
	for _, log := range []string{f.serial, f.log} {
		require.Eventually(t, func() bool { shells, _ := pumpsOf(t, log); return len(shells) == 0 }, patience, 5*time.Millisecond)
	}
	f.look(t)
	require.LessOrEqual(t, size(t, f.serial), int64(serialLogLimit))
	require.LessOrEqual(t, size(t, f.serial+".1"), int64(serialLogLimit))
	soak.AtMost(t, "F-1", who+": bytes of the state of a VM that floods its logs", stateMost, float64(f.most))
}

// F-1: a guest that floods its serial port, with no process of Castra's running for all that the pump knows.
func TestSerialFloodSoak(t *testing.T) {
	t.Setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0") // with huge pages an idle QEMU grows by 20 MiB, too: khugepaged fills them up
	f := floods(t, withDisk(t, realQEMU(t), floodSerial, func(disk string) string { return fmt.Sprintf(`{"driver":"file","filename":%q}`, disk) }))
	require.Eventually(t, func() bool { f.look(t); return f.turns > 0 }, patience, 10*time.Millisecond)
	before, began := rss(t, f.pid), time.Now()
	length := time.Duration(soak.N(1, 60)) * time.Second
	require.Eventually(t, func() bool { f.look(t); return time.Since(began) > length }, length+patience, 50*time.Millisecond)
	grown := rss(t, f.pid) - before
	require.Positive(t, size(t, f.serial), "it still floods")
	soak.AtLeast(t, "F-1", "seconds of a serial port flooded by a boot sector", 60, time.Since(began).Seconds())
	soak.AtMost(t, "F-1", "bytes by which QEMU's memory grew in a flood", 16<<20, float64(grown))
	f.finish(t, "real QEMU")
}

// F-1: the same as fast as a process can write, and QEMU's own output with it.
func TestFloodOfBothLogsSoak(t *testing.T) {
	t.Setenv("CASTRA_FAKE_QEMU", "flood-serial,flood-output,ignore-powerdown")
	f := floods(t, filepath.Join(qemutest.Install(t), "qemu-system-x86_64"))
	turns := soak.N(2, 40)
	require.Eventually(t, func() bool { f.look(t); return f.turns >= turns }, 10*patience, 2*time.Millisecond)
	require.Less(t, size(t, f.log), int64(qemuLogLimit)+1)
	require.Less(t, size(t, f.log+".1"), int64(qemuLogLimit)+1)
	require.NotContains(t, string(must(os.ReadFile(f.log+".1"))), "earlier")
	soak.AtLeast(t, "F-1", "times that a flooded log of 15 MiB was set aside", 40, float64(f.turns))
	f.finish(t, "fake QEMU")
}

// F-1: QEMU neither ends nor stands still where its pump is killed, or stopped with the pipe full.
func TestFloodWithoutAPump(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		t.Run(signal.String(), func(t *testing.T) {
			f := floods(t, withDisk(t, realQEMU(t), floodSerial, func(disk string) string { return fmt.Sprintf(`{"driver":"file","filename":%q}`, disk) }))
			for _, log := range []string{f.serial, f.log} {
				shell, child := awaitPump(t, log)
				t.Cleanup(func() { _, _ = syscall.Kill(shell, syscall.SIGCONT), syscall.Kill(child, syscall.SIGCONT) })
				require.NoError(t, syscall.Kill(shell, signal))
				if err := syscall.Kill(child, signal); err != nil {
					require.ErrorIs(t, err, syscall.ESRCH) // the log was full
				}
			}
			var last int64
			require.Eventually(t, func() bool { // nobody writes to the log any more
				now := size(t, f.serial)
				still := now == last
				last = now
				return still
			}, patience, 300*time.Millisecond)
			mon, err := qmp.Dial(t.Context(), f.Monitor)
			require.NoError(t, err)
			defer mon.Close()
			var status struct{ Status string }
			require.NoError(t, mon.Execute(t.Context(), "query-status", nil, &status))
			require.Equal(t, "running", status.Status)
			mon.Close()
			outcome, _ := stopped(t, f.Target, Ladder{Graceful: time.Millisecond, Terminate: patience})
			require.Equal(t, Terminated, outcome)
		})
	}
}
