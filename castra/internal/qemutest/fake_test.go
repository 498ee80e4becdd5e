package qemutest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qmp"
	"castra.example/castra/castra/internal/seed"
)

// seeded is a VM's command line with a seed, and what logs in to it.
type seeded struct {
	args    []string
	private []byte
	hostKey string
}

func (w *world) seeded(t *testing.T, name, user string) seeded {
	t.Helper()
	key, err := seed.NewKey("test")
	require.NoError(t, err)
	host, err := seed.NewKey("host")
	require.NoError(t, err)
	image := w.path(name + "-seed.iso")
	require.NoError(t, seed.Seed{
		InstanceID: "i-1", Hostname: name, User: user, AuthorizedKeys: []string{key.Public}, HostKey: host,
	}.Write(image))
	args := append(w.args(name, "tcp:127.0.0.1:0-:22", "tcp:127.0.0.1:0-:8080", "udp:127.0.0.1:0-:53"),
		"-blockdev", `{"node-name":"seed","driver":"raw","read-only":true,"file":{"driver":"file","filename":"`+image+`"}}`)
	return seeded{args, key.Private, host.Public}
}

func TestFakeGuest(t *testing.T) {
	for _, user := range []string{"root", "alice"} {
		t.Run(user, func(t *testing.T) {
			checkLeaks(t)
			w := fakeWorld(t, "")
			s := w.seeded(t, "web-0", user)
			v := w.launch(t, "web-0", s.args...)
			monitor := w.dial(t, "web-0")
			ports := forwardsOf(t, monitor)

			c, err := login(t, ports["22/tcp"], user, s.hostKey, s.private)
			require.NoError(t, err)
			stdout, _, err := run(t, c, "echo $USER on $CASTRA_FAKE_GUEST", "")
			require.NoError(t, err)
			require.Equal(t, user+" on web-0\n", stdout)
			require.Equal(t, "fake guest web-0 port 8080\n", get(t, ports["8080/tcp"]))
			require.Equal(t, "fake guest web-0 port 53\n", ask(t, ports["53/udp"]))

			require.NoError(t, monitor.Execute(t.Context(), "system_powerdown", nil, nil))
			code, stderr := v.result(t)
			require.Zero(t, code, stderr)
			require.NoFileExists(t, w.path("web-0.pid"))
			serial, err := os.ReadFile(w.path("web-0-serial.log"))
			require.NoError(t, err)
			require.Contains(t, string(serial), "web-0 login: ")
		})
	}
}

func get(t *testing.T, addr string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + addr)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}

func ask(t *testing.T, addr string) string {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("?"))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	buffer := make([]byte, 100)
	n, err := conn.Read(buffer)
	require.NoError(t, err)
	return string(buffer[:n])
}

func TestFakeNeverStarts(t *testing.T) {
	for name, x := range map[string]struct {
		status int
		signal syscall.Signal
		stderr string
	}{
		"exit-1":     {1, 0, "could not start, as told"},
		"no-pidfile": {0, 0, ""},
		"port-taken": {1, 0, "Could not set up host forwarding rule 'tcp:127.0.0.1:0-:22'"},
		"exit-late":  {1, 0, "ending late, as told"},
		"crash":      {-1, syscall.SIGSEGV, ""},
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			w := fakeWorld(t, "web-0:"+name)
			v := w.start(t, w.args("web-0", "tcp:127.0.0.1:0-:22")...)
			status, stderr := v.result(t)
			require.Equal(t, x.status, status)
			require.Contains(t, stderr, x.stderr)
			if x.signal != 0 {
				require.Equal(t, x.signal, v.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
			} else {
				require.NoFileExists(t, w.path("web-0.pid"))
			}
			w.launch(t, "db-0", w.args("db-0")...) // which it was not meant for
		})
	}
}

func TestFakePowerdownUnheeded(t *testing.T) {
	for personality, status := range map[string]string{
		"ignore-powerdown": "running",
		"paused":           "paused",
		"io-error":         "io-error",
		"slow-boot=1h":     "running",
	} {
		t.Run(personality, func(t *testing.T) {
			checkLeaks(t)
			w := fakeWorld(t, personality)
			s := w.seeded(t, "web-0", "root")
			v := w.launch(t, "web-0", s.args...)
			c := w.dial(t, "web-0")
			ports := forwardsOf(t, c)
			require.Equal(t, status, statusOf(t, c))
			if personality == "ignore-powerdown" {
				_, err := login(t, ports["22/tcp"], "root", s.hostKey, s.private)
				require.NoError(t, err)
			} else {
				requireSilence(t, ports["22/tcp"])
			}
			require.NoError(t, c.Execute(t.Context(), "system_powerdown", nil, nil))
			time.Sleep(3 * shutdownDelay)
			require.Equal(t, status, statusOf(t, c))
			v.signal(t, syscall.SIGTERM)
			code, _ := v.result(t)
			require.Zero(t, code)
		})
	}
}

func TestFakeDiskStaysFull(t *testing.T) {
	checkLeaks(t)
	w := fakeWorld(t, "io-error")
	w.launch(t, "a", w.args("a")...)
	c := w.dial(t, "a")
	require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
	require.Equal(t, "io-error", statusOf(t, c))
}

func TestFakeIsDeaf(t *testing.T) {
	for _, personality := range []string{"no-qmp-greeting", "hang", "hang,ignore-term"} {
		t.Run(personality, func(t *testing.T) {
			checkLeaks(t)
			w := fakeWorld(t, personality)
			v := w.start(t, w.seeded(t, "web-0", "root").args...)
			require.Eventually(t, func() bool {
				_, err := os.Stat(w.path("web-0.qmp"))
				return err == nil
			}, patience, 5*time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := qmp.Dial(ctx, w.path("web-0.qmp"))
			require.ErrorIs(t, err, qmp.ErrBusy)
			time.Sleep(50 * time.Millisecond) // the handler of SIGTERM comes after the socket
			v.signal(t, syscall.SIGTERM)
			if personality != "no-qmp-greeting" {
				time.Sleep(100 * time.Millisecond)
				require.True(t, v.alive())
				v.signal(t, syscall.SIGKILL)
			}
			v.result(t)
		})
	}
}

func TestFakeSlowExit(t *testing.T) {
	checkLeaks(t)
	w := fakeWorld(t, "slow-exit=200ms")
	v := w.launch(t, "a", w.args("a")...)
	require.NoError(t, w.dial(t, "a").Execute(t.Context(), "quit", nil, nil))
	require.True(t, v.alive())
	require.Equal(t, v.cmd.Process.Pid, w.holder(t, "a"), "the lock lasts until the end")
	code, _ := v.result(t)
	require.Zero(t, code)
}

func TestFakeLifetime(t *testing.T) {
	checkLeaks(t)
	w := fakeWorld(t, "hang,ignore-term")
	w.env = append(w.env, envLifetime+"=200ms")
	code, stderr := w.start(t, w.args("a")...).result(t)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "lifetime is over")
}

func TestFakeKilledTakesItsCommandsAlong(t *testing.T) {
	checkLeaks(t)
	w := fakeWorld(t, "")
	s := w.seeded(t, "web-0", "root")
	v := w.launch(t, "web-0", s.args...)
	c, err := login(t, forwardsOf(t, w.dial(t, "web-0"))["22/tcp"], "root", s.hostKey, s.private)
	require.NoError(t, err)
	session, err := c.NewSession()
	require.NoError(t, err)
	fifo := w.path("fifo")
	require.NoError(t, session.Start("mkfifo "+fifo+"; exec 3>"+fifo+"; exec sleep 100"))
	var reader *os.File
	require.Eventually(t, func() bool { reader, err = os.Open(fifo); return err == nil }, patience, 5*time.Millisecond)
	defer reader.Close()
	v.signal(t, syscall.SIGKILL)
	_, err = reader.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestInstallEndsItsFakes(t *testing.T) {
	checkLeaks(t)
	var left *exec.Cmd
	dir := ""
	t.Run("a test that leaves one behind", func(t *testing.T) {
		dir = Install(t)
		w := &world{qemu: dir + "/qemu-system-aarch64", dir: shortDir(t), env: []string{envQEMU + "=ignore-term"}}
		left = exec.Command(w.qemu, withMachine(w.args("a"), "virt")...)
		left.Dir, left.Env = w.dir, append(os.Environ(), w.env...)
		require.NoError(t, left.Start())
		require.Eventually(t, func() bool { return len(Running(t, dir)) == 1 }, patience, 5*time.Millisecond)
		w.await(t, &vm{ended: make(chan struct{})}, "a") // before its directory goes
		require.Equal(t, []int{left.Process.Pid}, Running(t, dir))
		require.NoError(t, os.WriteFile(dir+"/fakes/"+fmt.Sprint(os.Getpid()), nil, 0o600)) // proves nothing
		require.Len(t, Running(t, dir), 1)
	})
	require.Error(t, left.Wait(), "killed")
	require.Equal(t, syscall.SIGKILL, left.ProcessState.Sys().(syscall.WaitStatus).Signal())
}

func TestFakeImg(t *testing.T) {
	create := []string{"create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base", "o"}
	for personality, check := range map[string]func(t *testing.T, w *world, out string, err error){
		"": func(t *testing.T, w *world, out string, err error) {
			require.NoError(t, err, out)
			require.FileExists(t, w.path("o"))
		},
		"exit-1": func(t *testing.T, _ *world, _ string, err error) { require.EqualError(t, err, "exit status 1") },
		"missing-output": func(t *testing.T, w *world, _ string, err error) {
			require.NoError(t, err)
			require.NoFileExists(t, w.path("o"))
		},
		"signal": func(t *testing.T, _ *world, _ string, err error) { require.EqualError(t, err, "signal: killed") },
		"big-stderr": func(t *testing.T, _ *world, out string, err error) {
			require.EqualError(t, err, "exit status 1")
			require.Len(t, out, 10<<20)
		},
	} {
		t.Run(personality, func(t *testing.T) {
			w := fakeWorld(t, "")
			w.env = append(w.env, envImg+"="+personality)
			WriteImage(t, w.path("base"), 1<<20)
			out, err := w.runImg(t, create...)
			check(t, w, out, err)
		})
	}
}

func TestPersonality(t *testing.T) {
	p := Personality("ignore-term, web-0:hang,web-0:slow-boot=2s,db-0:crash")
	web, db := p.For("web-0"), p.For("db-0")
	require.True(t, web.Has("hang") && web.Has("ignore-term") && !web.Has("crash"))
	require.True(t, db.Has("crash") && db.Has("ignore-term") && !db.Has("hang"))
	require.Equal(t, 2*time.Second, web.Duration("slow-boot", time.Hour))
	require.Equal(t, time.Hour, db.Duration("slow-boot", time.Hour))
	require.False(t, Personality("").Has("hang"))
	require.NotContains(t, string(db), "web-0")
}
