package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const envHeadless = "CASTRA_TEST_HEADLESS"

// init makes of the re-executed test binary a process whose first thread has
// ended while others live, as that of a QEMU being killed may for a moment.
func init() {
	if os.Getenv(envHeadless) == "" {
		return
	}
	runtime.LockOSThread() // init runs on the first thread
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
}

// A process holds its locks until its last thread has ended.
func TestWaitExitWaitsForAllThreads(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envHeadless+"=1")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		return err == nil && bytes.Contains(b, []byte(") Z "))
	}, 10*time.Second, 5*time.Millisecond)

	p, err := OpenProcess(cmd.Process.Pid)
	require.NoError(t, err)
	defer p.Release()
	for name, wait := range map[string]func(context.Context) error{"pidfd": p.WaitExit, "polling": p.pollExit} {
		brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		require.ErrorIs(t, wait(brief), context.DeadlineExceeded, name)
		cancel()
	}
	require.NoError(t, stdin.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, p.WaitExit(ctx))
	require.NoError(t, p.pollExit(ctx))
	<-waited
}
