package qemutest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"castra.example/castra/castra/internal/qmp"
)

func TestMain(m *testing.M) { Main(m) }

const (
	testUUID = "5b1b6a52-6d0c-4b7e-9a8e-0d5c2f1e3a4b"
	patience = 30 * time.Second // for a busy machine; nothing here takes a second
)

// world is one directory with QEMUs in it, real or fake.
type world struct {
	qemu, img string // programs
	dir       string // working directory of all QEMUs
	env       []string
}

// fakeWorld is a world of fakes with the given personality.
func fakeWorld(t *testing.T, personality string) *world {
	t.Helper()
	programs := Install(t)
	return &world{
		qemu: filepath.Join(programs, "qemu-system-x86_64"), img: filepath.Join(programs, "qemu-img"),
		dir: shortDir(t), env: []string{envQEMU + "=" + personality},
	}
}

// realWorld needs QEMU.
func realWorld(t *testing.T) *world {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	return &world{qemu: qemu, img: img, dir: shortDir(t)}
}

// shortDir is a directory in which socket paths fit.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qt")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// args is a command line as castra writes it, for the VM called name.
func (w *world) args(name string, forwards ...string) []string {
	netdev := "user,id=net0"
	for _, f := range forwards {
		netdev += ",hostfwd=" + f
	}
	return []string{
		"-name", "guest=" + name, "-uuid", testUUID, "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "pc", "-accel", "tcg", "-m", "64M",
		"-netdev", netdev, "-device", `{"driver":"virtio-net-pci","netdev":"net0","romfile":""}`,
		"-chardev", "file,id=serial0,append=on,path=" + name + "-serial.log", "-serial", "chardev:serial0",
		"-chardev", "socket,id=monitor0,server=on,wait=off,path=" + name + ".qmp", "-mon", "chardev=monitor0,mode=control",
		"-pidfile", w.path(name + ".pid"),
	}
}

func overlayArgs(path string) []string {
	return []string{"-blockdev", `{"node-name":"overlay","driver":"qcow2","read-only":false,"file":{"driver":"file","filename":"` + path + `"}}`}
}

// vm is a QEMU that was started.
type vm struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{}
}

func (w *world) start(t *testing.T, args ...string) *vm {
	t.Helper()
	return w.startWith(t, nil, args...)
}

// startWith gives QEMU files as descriptors from 3 on.
func (w *world) startWith(t *testing.T, files []*os.File, args ...string) *vm {
	t.Helper()
	v := &vm{cmd: exec.Command(w.qemu, args...), ended: make(chan struct{})}
	v.cmd.Dir, v.cmd.Stderr, v.cmd.ExtraFiles = w.dir, &v.stderr, files
	v.cmd.Env = append(os.Environ(), w.env...)
	require.NoError(t, v.cmd.Start())
	go func() {
		_ = v.cmd.Wait()
		close(v.ended)
	}()
	t.Cleanup(func() {
		_ = v.cmd.Process.Kill()
		<-v.ended
		require.NotContains(t, v.stderr.String(), "DATA RACE")
	})
	return v
}

// launch starts the VM called name and waits until its monitor answers.
func (w *world) launch(t *testing.T, name string, args ...string) *vm {
	t.Helper()
	v := w.start(t, args...)
	w.await(t, v, name)
	return v
}

// await waits until v, the VM called name, answers on its monitor.
func (w *world) await(t *testing.T, v *vm, name string) {
	t.Helper()
	require.Eventually(t, func() bool {
		select {
		case <-v.ended:
			return true
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err := qmp.Dial(ctx, w.path(name+".qmp"))
		return err == nil && c.Close() == nil
	}, patience, 10*time.Millisecond)
	require.True(t, v.alive(), "ended: %s", &v.stderr)
}

func (v *vm) alive() bool {
	select {
	case <-v.ended:
		return false
	default:
		return true
	}
}

// result waits for the end and returns exit status and stderr; a signal's
// status is -1.
func (v *vm) result(t *testing.T) (int, string) {
	t.Helper()
	select {
	case <-v.ended:
		return v.cmd.ProcessState.ExitCode(), v.stderr.String()
	case <-time.After(patience):
		require.Fail(t, "QEMU does not end")
		return 0, ""
	}
}

func (v *vm) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	require.NoError(t, v.cmd.Process.Signal(s))
}

func (w *world) dial(t *testing.T, name string) *qmp.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := qmp.Dial(ctx, w.path(name+".qmp"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func statusOf(t *testing.T, c *qmp.Client) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var s struct{ Status string }
	require.NoError(t, c.Execute(ctx, "query-status", nil, &s))
	return s.Status
}

// forwardsOf are the host ports by guest port and protocol: "22/tcp".
func forwardsOf(t *testing.T, c *qmp.Client) map[string]string {
	t.Helper()
	text, err := c.HumanMonitor(t.Context(), "info usernet")
	require.NoError(t, err)
	ports := map[string]string{}
	for line := range strings.SplitSeq(text, "\r\n") {
		f := strings.Fields(line)
		if len(f) == 8 && strings.HasSuffix(f[0], "[HOST_FORWARD]") {
			protocol, _, _ := strings.Cut(strings.ToLower(f[0]), "[")
			ports[f[5]+"/"+protocol] = fmt.Sprintf("%s:%s", f[2], f[3])
		}
	}
	return ports
}

// holder is the pid that holds the pidfile, or 0.
func (w *world) holder(t *testing.T, name string) int {
	t.Helper()
	f, err := os.Open(w.path(name + ".pid"))
	require.NoError(t, err)
	defer f.Close()
	pid, err := lockHolder(f)
	require.NoError(t, err)
	return pid
}

func (w *world) runImg(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(w.img, args...)
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), w.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &v), text)
	return v
}

// checkLeaks makes sure at the end of t that no goroutine of it is left.
func checkLeaks(t *testing.T) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}
