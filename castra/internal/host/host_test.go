package host

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBootIDIsSteady(t *testing.T) {
	require.NotEmpty(t, BootID())
	require.Equal(t, BootID(), BootID())
}

func TestAvailableMemoryAndDisk(t *testing.T) {
	if runtime.GOOS == "linux" {
		n, err := AvailableMemory()
		require.NoError(t, err)
		require.Greater(t, n, uint64(1<<20))
		total, err := TotalMemory()
		require.NoError(t, err)
		require.Greater(t, total, n)
	}
	free, err := FreeDisk(t.TempDir())
	require.NoError(t, err)
	require.Positive(t, free)
	_, err = FreeDisk("/no/such/path")
	require.ErrorContains(t, err, "/no/such/path")
}

func TestPortOwner(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("known on Linux alone")
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue // no IPv6 here
		}
		port := l.Addr().(*net.TCPAddr).Port
		require.Contains(t, PortOwner("tcp", port), fmt.Sprintf("pid %d (", os.Getpid()))
		require.Empty(t, PortOwner("udp", port))
		l.Close()
		require.Empty(t, PortOwner("tcp", port))
	}
}

func TestWaitExit(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	p, err := OpenProcess(cmd.Process.Pid)
	require.NoError(t, err)
	defer p.Release()

	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.WaitExit(short), context.DeadlineExceeded)
	require.ErrorIs(t, p.pollExit(short), context.DeadlineExceeded)

	require.NoError(t, p.Signal(syscall.SIGTERM))
	// Nobody has waited for the child: a zombie counts as ended (failure bank 59).
	require.NoError(t, p.WaitExit(t.Context()))
	require.NoError(t, p.pollExit(t.Context()))
	require.Error(t, cmd.Wait())
	require.NoError(t, p.Signal(syscall.SIGTERM), "a process that has ended is no error")
	require.NoError(t, p.WaitExit(t.Context()))
}

func TestNoSignalsToGroupsOrInit(t *testing.T) {
	for _, pid := range []int{-1, 0, 1} {
		_, err := OpenProcess(pid)
		require.Error(t, err, pid)
	}
}
