package qemutest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/qmp"
)

const (
	ramSize = 64 << 20 // of w.args
	memfd   = `{"qom-type":"memory-backend-memfd","id":"ram0","size":67108864,"share":true}`
)

func ramFile(path string) string {
	return fmt.Sprintf(`{"qom-type":"memory-backend-file","id":"ram0","size":%d,"mem-path":%q,"share":false}`, ramSize, path)
}

// warm is args with the guest's memory in an object.
func warm(args []string, object string, more ...string) []string {
	args = append(append([]string{}, args...), "-object", object)
	for i, a := range args {
		if a == "-machine" {
			args[i+1] = "q35,memory-backend=ram0"
		}
	}
	return append(args, more...)
}

// saved is a machine that was saved to files.
type saved struct{ ram, state string }

// save stops the VM called name and saves it. Its monitor is left connected.
func (w *world) save(t *testing.T, v *vm, c *qmp.Client) saved {
	t.Helper()
	require.NoError(t, c.Execute(t.Context(), "stop", nil, nil))
	require.NoError(t, c.Execute(t.Context(), "migrate-set-capabilities", ignoreShared(), nil))
	s := saved{w.path("ram"), w.path("state")}
	received := w.receive(t, s.state)
	require.NoError(t, c.Execute(t.Context(), "migrate", map[string]any{"uri": "unix:" + w.path("socket")}, nil))
	<-received
	require.Equal(t, "completed", w.migrated(t, c).Status)
	require.Equal(t, "postmigrate", statusOf(t, c))
	copyMemory(t, v.cmd.Process.Pid, s.ram)
	return s
}

func ignoreShared() json.RawMessage {
	return json.RawMessage(`{"capabilities":[{"capability":"x-ignore-shared","state":true}]}`)
}

// receive writes to file what is sent to the socket.
func (w *world) receive(t *testing.T, file string) <-chan struct{} {
	t.Helper()
	_ = os.Remove(w.path("socket"))
	ln, err := net.Listen("unix", w.path("socket"))
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	received := make(chan struct{})
	go func() {
		defer close(received)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		data, _ := io.ReadAll(conn)
		_ = os.WriteFile(file, data, 0o600)
	}()
	return received
}

type migrationStatus struct {
	Status string
	Desc   string `json:"error-desc"`
}

// migrated waits until a migration is over.
func (w *world) migrated(t *testing.T, c *qmp.Client) (s migrationStatus) {
	t.Helper()
	require.Eventually(t, func() bool {
		s = migrationStatus{}
		require.NoError(t, c.Execute(t.Context(), "query-migrate", nil, &s))
		return s.Status != "setup" && s.Status != "active"
	}, patience, 2*time.Millisecond)
	return s
}

// copyMemory finds the guest's memory as castra does.
func copyMemory(t *testing.T, pid int, to string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if link, _ := os.Readlink(filepath.Join(dir, e.Name())); link == "/memfd:memory-backend-memfd (deleted)" {
			copyData(t, filepath.Join(dir, e.Name()), to)
			return
		}
	}
	require.Fail(t, "no memory in "+dir)
}

// copyData copies a file of ramSize bytes and leaves out its holes.
func copyData(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	require.NoError(t, err)
	defer in.Close()
	out, err := os.Create(to)
	require.NoError(t, err)
	defer out.Close()
	require.NoError(t, out.Truncate(ramSize))
	for at := int64(0); ; {
		at, err = in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		require.NoError(t, err)
		end, err := in.Seek(at, unix.SEEK_HOLE)
		require.NoError(t, err)
		_, err = io.Copy(io.NewOffsetWriter(out, at), io.NewSectionReader(in, at, end-at))
		require.NoError(t, err)
		at = end
	}
	size, err := in.Seek(0, io.SeekEnd)
	require.NoError(t, err)
	require.EqualValues(t, ramSize, size)
}

// startSaved starts a QEMU with the state as descriptor 3.
func (w *world) startSaved(t *testing.T, s saved, args ...string) *vm {
	t.Helper()
	state, err := os.Open(s.state)
	require.NoError(t, err)
	defer state.Close()
	return w.startWith(t, []*os.File{state}, args...)
}

// restore starts the VM called name from s, up to the loading of the state.
func (w *world) restore(t *testing.T, name string, s saved, args []string) (*vm, *qmp.Client) {
	t.Helper()
	v := w.startSaved(t, s, warm(args, ramFile(s.ram), "-incoming", "defer")...)
	w.await(t, v, name)
	c := w.dial(t, name)
	require.Equal(t, "inmigrate", statusOf(t, c))
	require.NoError(t, c.Execute(t.Context(), "migrate-set-capabilities", ignoreShared(), nil))
	require.NoError(t, c.Execute(t.Context(), "migrate-set-parameters", map[string]any{"announce-rounds": 0}, nil))
	require.NoError(t, c.Execute(t.Context(), "migrate-incoming", map[string]any{"uri": "fd:3"}, nil))
	return v, c
}

func requireLoaded(t *testing.T, c *qmp.Client) {
	t.Helper()
	require.Eventually(t, func() bool { return statusOf(t, c) != "inmigrate" }, patience, 2*time.Millisecond)
}

func requireRefused(t *testing.T, v *vm, says string) {
	t.Helper()
	code, stderr := v.result(t)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "qemu-system-x86_64: load of migration failed: "+says)
}

// brief is a machine without a guest, that has run.
func (w *world) brief(t *testing.T) saved {
	t.Helper()
	v := w.launch(t, "a", warm(w.args("a"), memfd, "-S")...)
	c := w.dial(t, "a")
	require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
	s := w.save(t, v, c)
	require.NoError(t, c.Execute(t.Context(), "quit", nil, nil))
	v.result(t)
	return s
}
