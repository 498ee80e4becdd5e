package qmp

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const testUUID = "0f6f1c5e-3a5b-4c1d-9f5e-27c1a2b3c4d5"

// startQEMU runs a real QEMU without a guest and returns its pid and its
// monitor, in a directory whose path is as long as pad asks.
func startQEMU(t *testing.T, pad int) (pid int, path string) {
	t.Helper()
	binary, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	dir := filepath.Join(shortDir(t), strings.Repeat("d", pad))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	cmd := exec.Command(binary, "-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-no-user-config",
		"-uuid", testUUID, "-qmp", "unix:m.qmp,server=on,wait=off",
		"-netdev", "user,id=net0,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net0,romfile=")
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		goleak.VerifyNone(t)
	})
	path = filepath.Join(dir, "m.qmp")
	require.Eventually(t, func() bool {
		c, err := Dial(t.Context(), path)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}, 30*time.Second, 20*time.Millisecond, "QEMU does not serve its monitor: %s", &stderr)
	return cmd.Process.Pid, path
}

func TestRealQEMU(t *testing.T) {
	pid, path := startQEMU(t, 1)
	c := dialStub(t, path)
	require.Contains(t, []int{pid, 0}, c.Peer())

	var status struct {
		Status  string
		Running bool
	}
	require.NoError(t, c.Execute(t.Context(), "query-status", nil, &status))
	require.Equal(t, "prelaunch", status.Status)
	require.False(t, status.Running)
	var id struct{ UUID string }
	require.NoError(t, c.Execute(t.Context(), "query-uuid", nil, &id))
	require.Equal(t, testUUID, id.UUID)
	text, err := c.HumanMonitor(t.Context(), "info usernet")
	require.NoError(t, err)
	require.Contains(t, text, "TCP[HOST_FORWARD]")

	err = c.Execute(t.Context(), "no-such-command", nil, nil)
	var refused *Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "CommandNotFound", refused.Class)

	// events between a command and its reply
	require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
	require.NoError(t, c.Execute(t.Context(), "stop", nil, nil))
	require.NoError(t, c.Execute(t.Context(), "query-status", nil, &status))
	require.Equal(t, "paused", status.Status)

	err = c.Execute(t.Context(), "query-qmp-schema", nil, nil)
	requireAll(t, err, "more than 64 KiB")
	require.Error(t, c.Execute(t.Context(), "query-status", nil, nil))
}

func TestRealQEMUServesOneClient(t *testing.T) {
	_, path := startQEMU(t, 1)
	first := dialStub(t, path)
	_, err := Dial(soon(t), path)
	require.ErrorIs(t, err, ErrBusy)

	// fill the queue of clients that wait: then connecting itself blocks
	var waiting []io.Closer
	for range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		cancel()
		if err == nil {
			waiting = append(waiting, conn)
		}
	}
	_, err = Dial(soon(t), path)
	require.ErrorIs(t, err, ErrBusy)
	for _, conn := range waiting {
		conn.Close()
	}

	require.NoError(t, first.Close())
	dialStub(t, path)
}

func TestRealQEMULongPath(t *testing.T) {
	_, path := startQEMU(t, 150)
	require.Greater(t, len(path), 107)
	var id struct{ UUID string }
	require.NoError(t, dialStub(t, path).Execute(t.Context(), "query-uuid", nil, &id))
	require.Equal(t, testUUID, id.UUID)
}

func TestRealQEMUQuit(t *testing.T) {
	_, path := startQEMU(t, 1)
	c := dialStub(t, path)
	require.NoError(t, c.Execute(t.Context(), "quit", nil, nil))
	require.Eventually(t, func() bool {
		return c.Execute(t.Context(), "query-status", nil, nil) != nil
	}, 30*time.Second, 10*time.Millisecond)
}
