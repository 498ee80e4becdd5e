package castra

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The pidfile may be lost under a living VM: its monitor tells who it is.
func TestPidfileRemoved(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	pid := w.status("web-0").PID
	require.NoError(t, os.Remove(w.layout().Pidfile("web-0")))
	s := w.status("web-0")
	require.Equal(t, "running", s.State)
	require.Equal(t, pid, s.PID)
	require.Contains(t, s.Problem, "pidfile is gone")
	w.up() // and no second one is started
	require.Equal(t, []int{pid}, w.running())
	w.events.forget()
	w.down()
	require.Equal(t, []string{
		"vm.shutdown.requested", "vm.cooperative.attempted qmp", "vm.cooperative.succeeded",
		"vm.stopped graceful", "vm.overlay.discarded shutdown",
	}, w.events.story("web-0"))
	w.cleanSlate()
}

func TestMonitorRemoved(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	require.NoError(t, os.Remove(w.layout().Monitor("web-0")))
	require.Equal(t, "not responding", w.status("web-0").State)
	w.events.forget()
	w.down()
	require.Equal(t, []string{
		"vm.shutdown.requested", "vm.cooperative.attempted unavailable", "vm.escalated SIGTERM",
		"vm.stopped terminated", "vm.overlay.discarded shutdown",
	}, w.events.story("web-0"))
	w.cleanSlate()
}

// A file in the monitor's place is not Castra's to remove. QEMU itself unlinks
// that path when it ends in order, so the VM is one that must be killed.
func TestMonitorReplaced(t *testing.T) {
	w := newWorld(t, hasty, vm("web"))
	w.personality("ignore-powerdown,ignore-term")
	w.up()
	monitor := w.layout().Monitor("web-0")
	require.NoError(t, os.Remove(monitor))
	require.NoError(t, os.WriteFile(monitor, []byte("mine"), 0o600))
	err := w.open().Down(t.Context())
	require.ErrorContains(t, err, monitor+" is not a socket")
	require.Empty(t, w.running())
	data, err := os.ReadFile(monitor)
	require.NoError(t, err)
	require.Equal(t, "mine", string(data))
	require.Equal(t, []string{"web-0"}, w.session().Names())
	require.Error(t, w.open().Up(t.Context(), UpOptions{}), "it is in the way")
	require.NoError(t, os.Remove(monitor))
	w.down()
	w.cleanSlate()
}

// B6: a foreign server on the socket's path is not believed, and not harmed.
func TestForeignMonitor(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	l := w.layout()
	require.NoError(t, os.Remove(l.Monitor("web-0")))
	t.Chdir(l.Root)
	ln, err := net.Listen("unix", l.MonitorName("web-0"))
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 mail.example ESMTP\r\n"))
			conn.Close()
		}
	}()
	s := w.status("web-0")
	require.Equal(t, "not responding", s.State)
	require.Contains(t, s.Problem, "does not speak QMP")
	w.down()
	w.cleanSlate()
}

// innocent is a process of this test that has nothing to do with any VM.
func innocent(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		select {
		case <-ended:
			t.Error("an innocent process was ended")
		default:
		}
		_ = cmd.Process.Kill()
		<-ended
	})
	return cmd
}

// B4, B5: what a pidfile says is never believed.
func TestStalePidfiles(t *testing.T) {
	bystander := strconv.Itoa(innocent(t).Process.Pid)
	for name, content := range map[string]string{
		"living bystander": bystander, "group": "-1", "all": "0", "init": "1", "huge": "99999999999999999999",
		"text": "web", "NUL": "\x00\x00", "empty": "", "newlines": "\n\n" + bystander + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			w.up()
			w.down()
			pidfile := w.layout().Pidfile("web-0")
			put := func() { require.NoError(t, os.WriteFile(pidfile, []byte(content), 0o600)) }
			put()
			require.Equal(t, "stopped", w.status("web-0").State)
			require.FileExists(t, pidfile, "status changes nothing")
			w.down()
			require.NoFileExists(t, pidfile)
			put()
			require.NoError(t, w.open().Clean(t.Context()))
			require.NoFileExists(t, pidfile)
			put()
			w.up()
			require.Equal(t, "running", w.status("web-0").State)
			w.down()
			w.cleanSlate()
		})
	}
}

// What is no regular file is no pidfile: nothing waits for it, follows it or
// removes it, and the error names it.
func TestOddPidfiles(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, path string){
		"FIFO":      func(t *testing.T, path string) { require.NoError(t, unix.Mkfifo(path, 0o600)) },
		"directory": func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
		"symlink": func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "victim")
			require.NoError(t, os.WriteFile(target, []byte("1"), 0o600))
			t.Cleanup(func() { require.FileExists(t, target) })
			require.NoError(t, os.Symlink(target, path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			w.up()
			w.down()
			pidfile := w.layout().Pidfile("web-0")
			make(t, pidfile)
			require.Equal(t, "stopped", w.status("web-0").State)
			for verb, run := range map[string]func() error{
				"up":    func() error { return w.open().Up(t.Context(), UpOptions{}) },
				"down":  func() error { return w.open().Down(t.Context()) },
				"clean": func() error { return w.open().Clean(t.Context()) },
			} {
				require.ErrorContains(t, run(), pidfile, verb)
				_, err := os.Lstat(pidfile)
				require.NoError(t, err, verb)
			}
			require.Empty(t, w.running())
			require.NoError(t, os.Remove(pidfile))
			w.up()
			w.down()
			w.cleanSlate()
		})
	}
}
