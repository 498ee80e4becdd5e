package qemutest

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"castra.example/castra/castra/internal/qmp"
)

// savedGuest is a guest that was made ready, saved and powered off, and its
// home.
type savedGuest struct {
	seeded
	saved
	w *world
}

// saveGuest takes a personality that the QEMUs of the restored guests have.
func saveGuest(t *testing.T, personality string) savedGuest {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("memory is in a memfd on Linux alone")
	}
	checkLeaks(t)
	w := fakeWorld(t, personality)
	s := w.seeded(t, "web-0", "alice")
	v := w.launch(t, "web-0", warm(s.args, memfd)...)
	c := w.dial(t, "web-0")
	client, err := login(t, forwardsOf(t, c)["22/tcp"], "alice", s.hostKey, s.private)
	require.NoError(t, err)
	_, _, err = run(t, client, "mkdir -p a/b; echo kept > a/b/c; chmod 750 a/b/c; ln -s c a/b/d", "")
	require.NoError(t, err)
	stdout, _, err := run(t, client, "sudo -n sh -c 'cat >/run/castra/wake && chmod 700 /run/castra/wake'", "a program")
	require.NoError(t, err)
	require.Equal(t, wakeProgram+"\n", stdout)
	client.Close()
	files := w.save(t, v, c)
	memory, err := os.ReadFile(files.ram)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(memory), "fake guest memory\nboot 1 of web-0\n"))
	require.NoError(t, c.Execute(t.Context(), "quit", nil, nil))
	v.result(t)
	return savedGuest{s, files, w}
}

// restore restores s as the VM called name and lets it run.
func (s savedGuest) restore(t *testing.T, name string) (v *vm, c *qmp.Client, ports map[string]string) {
	t.Helper()
	args := s.w.args(name, "tcp:127.0.0.1:0-:22", "tcp:127.0.0.1:0-:8080")
	v, c = s.w.restore(t, name, s.saved, args)
	requireLoaded(t, c)
	ports = forwardsOf(t, c)
	requireSilence(t, ports["22/tcp"])
	require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
	return v, c, ports
}

func wakeInput(t *testing.T, hostname string, at time.Time) string {
	t.Helper()
	m := wakeMessage{Sec: at.Unix(), Nsec: int64(at.Nanosecond()), Bits: 2048, Size: 256, HostLen: int64(len(hostname))}
	copy(m.Host[:], hostname)
	copy(m.Random[:], "seed of "+hostname)
	var b bytes.Buffer
	require.NoError(t, binary.Write(&b, binary.LittleEndian, m))
	require.Equal(t, 352, b.Len())
	return b.String()
}

func TestFakeGuestIsRestored(t *testing.T) {
	s := saveGuest(t, "slow-boot=300ms")
	unchanged := thisComputer(t)
	time.Sleep(300 * time.Millisecond) // the guest's clock stands still meanwhile
	for _, name := range []string{"web-1", "web-2"} {
		v, c, ports := s.restore(t, name)
		started := time.Now()
		client, err := login(t, ports["22/tcp"], "alice", s.hostKey, s.private)
		require.NoError(t, err)
		require.Less(t, time.Since(started), 290*time.Millisecond, "it need not boot")
		stdout, _, err := run(t, client, `cat a/b/c; test -x a/b/c && echo "$USER $CASTRA_FAKE_GUEST $(hostname)"`, "")
		require.NoError(t, err)
		require.Equal(t, "kept\nalice web-0 web-0\n", stdout)
		require.Equal(t, "fake guest web-0 port 8080\n", get(t, ports["8080/tcp"]))
		require.Less(t, s.guest(t, name).ClockOff, -300*time.Millisecond)

		now := time.Now()
		_, _, err = run(t, client, "sudo -n '/run/castra/wake'", wakeInput(t, name, now))
		require.NoError(t, err)
		_, _, err = run(t, client, "exec '/run/castra/wake'", wakeInput(t, name, now))
		require.NoError(t, err)
		g := s.guest(t, name)
		require.InDelta(t, 0, g.ClockOff.Seconds(), 0.25)
		require.Len(t, g.Wakes, 2)
		require.True(t, g.Wakes[0].Time.Equal(now))
		require.Equal(t, name, g.Wakes[0].Hostname)
		require.Len(t, g.Wakes[0].Seed, 256)
		require.True(t, strings.HasPrefix(string(g.Wakes[0].Seed), "seed of "+name+"\x00"))
		require.Equal(t, Guest{
			Name: name, PID: v.cmd.Process.Pid, Boot: 1, Restored: true, Hostname: name, ClockOff: g.ClockOff, Wakes: g.Wakes,
		}, g)
		stdout, _, err = run(t, client, "hostname; hostname nope; date -s 2001-01-01; date --set=2001-01-01; hostname", "")
		require.NoError(t, err)
		require.Equal(t, name+"\n"+name+"\n", stdout)

		client.Close()
		require.NoError(t, c.Execute(t.Context(), "system_powerdown", nil, nil))
		v.result(t)
	}
	unchanged()
}

// thisComputer returns a function that requires its name, its clock and its
// files to be as they were.
func thisComputer(t *testing.T) (unchanged func()) {
	t.Helper()
	name, err := os.Hostname()
	require.NoError(t, err)
	start := time.Now()
	return func() {
		t.Helper()
		now, err := os.Hostname()
		require.NoError(t, err)
		require.Equal(t, name, now)
		end := time.Now()
		require.InDelta(t, end.Sub(start), end.Round(0).Sub(start.Round(0)), float64(time.Second), "the clock was set")
		require.NoFileExists(t, wakeProgram)
	}
}

// guest is what was written of the VM called name.
func (s savedGuest) guest(t *testing.T, name string) Guest {
	t.Helper()
	for _, g := range Guests(t, filepath.Dir(s.w.qemu)) {
		if g.Name == name {
			return g
		}
	}
	require.Fail(t, "no guest "+name)
	return Guest{}
}

// The guest of a guest that was restored and saved again goes on as well.
func TestFakeGuestIsSavedTwice(t *testing.T) {
	s := saveGuest(t, "")
	v := s.w.startSaved(t, s.saved, warm(s.w.args("web-1", "tcp:127.0.0.1:0-:22"), ramFile(s.ram), "-incoming", "defer")...)
	s.w.await(t, v, "web-1")
	c := s.w.dial(t, "web-1")
	require.NoError(t, c.Execute(t.Context(), "migrate-set-capabilities", ignoreShared(), nil))
	require.NoError(t, c.Execute(t.Context(), "migrate-incoming", map[string]any{"uri": "fd:3"}, nil))
	requireLoaded(t, c)
	require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
	client, err := login(t, forwardsOf(t, c)["22/tcp"], "alice", s.hostKey, s.private)
	require.NoError(t, err)
	first := workload(t, client)
	require.Positive(t, first)
	client.Close()
	require.NoError(t, c.Execute(t.Context(), "stop", nil, nil))
	received := s.w.receive(t, s.state)
	require.NoError(t, c.Execute(t.Context(), "migrate", map[string]any{"uri": "unix:" + s.w.path("socket")}, nil))
	<-received
	require.NoError(t, c.Execute(t.Context(), "quit", nil, nil))
	v.result(t)

	require.NoError(t, os.Truncate(s.ram, 0), "a private mapping is saved with the state")
	_, _, ports := s.restore(t, "web-2")
	client, err = login(t, ports["22/tcp"], "alice", s.hostKey, s.private)
	require.NoError(t, err)
	require.Greater(t, workload(t, client), first, "it goes on where it was")
}

func workload(t *testing.T, client *ssh.Client) int {
	t.Helper()
	stdout, _, err := run(t, client, "echo $CASTRA_FAKE_WORKLOAD", "")
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(stdout))
	require.NoError(t, err)
	return n
}

// A guest whose memory is not the one that was saved is as dead as a real one.
func TestFakeGuestWithoutItsMemory(t *testing.T) {
	for name, spoil := range map[string]func(ram string) error{
		"missing": os.Remove,
		"empty":   func(ram string) error { return os.Truncate(ram, 0) },
		"another": func(ram string) error { return os.WriteFile(ram, make([]byte, ramSize), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s := saveGuest(t, "")
			require.NoError(t, spoil(s.ram))
			_, c, ports := s.restore(t, "web-1")
			require.Equal(t, "running", statusOf(t, c))
			requireSilence(t, ports["22/tcp"])
		})
	}
}

func TestFakeRestorePersonalities(t *testing.T) {
	t.Run("restore-refused", func(t *testing.T) {
		s := saveGuest(t, "web-1:restore-refused")
		v, _ := s.w.restore(t, "web-1", s.saved, s.w.args("web-1"))
		code, stderr := v.result(t)
		require.Equal(t, 1, code)
		require.Equal(t, "qemu-system-x86_64: load of migration failed: Invalid argument\n", stderr)
	})
	t.Run("restore-silent", func(t *testing.T) {
		s := saveGuest(t, "web-1:restore-silent")
		_, c, ports := s.restore(t, "web-1")
		require.Equal(t, "running", statusOf(t, c))
		requireSilence(t, ports["22/tcp"])
	})
	for name, args := range map[string][]string{
		"memory": {"-m", "32M", "-object", strings.Replace(memfd, "67108864", "33554432", 1)},
		"cpu":    {"-cpu", "max"},
		"cpus":   {"-smp", "2"},
		"device": {"-device", `{"driver":"virtio-rng-pci"}`},
		"switch": {"-machine", "q35,sata=off,memory-backend=ram0"},
	} {
		t.Run("another "+name, func(t *testing.T) {
			s := saveGuest(t, "")
			if name != "memory" {
				args = append(args, "-object", ramFile(s.ram))
			}
			w := s.w.args("web-1")
			for i, a := range w {
				if a == "-machine" {
					w[i+1] = "q35,memory-backend=ram0"
				}
			}
			v := s.w.startSaved(t, s.saved, append(append(w, "-incoming", "defer"), args...)...)
			s.w.await(t, v, "web-1")
			c := s.w.dial(t, "web-1")
			require.NoError(t, c.Execute(t.Context(), "migrate-set-capabilities", ignoreShared(), nil))
			require.NoError(t, c.Execute(t.Context(), "migrate-incoming", map[string]any{"uri": "fd:3"}, nil))
			requireRefused(t, v, "Invalid argument")
		})
	}
}

func TestFakeMigratePersonalities(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory is in a memfd on Linux alone")
	}
	begin := func(t *testing.T, personality string) (w *world, c *qmp.Client, migrate func() error) {
		checkLeaks(t)
		w = fakeWorld(t, personality)
		w.launch(t, "a", warm(w.args("a"), memfd)...)
		c = w.dial(t, "a")
		w.receive(t, w.path("state"))
		return w, c, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			return c.Execute(ctx, "migrate", map[string]any{"uri": "unix:" + w.path("socket")}, nil)
		}
	}
	t.Run("migrate-fails", func(t *testing.T) {
		w, c, migrate := begin(t, "migrate-fails")
		require.NoError(t, migrate())
		require.Equal(t, migrationStatus{"failed", "Unable to write to socket: Broken pipe"}, w.migrated(t, c))
		require.Equal(t, "running", statusOf(t, c))
	})
	t.Run("migrate-stuck", func(t *testing.T) {
		w, c, migrate := begin(t, "migrate-stuck")
		require.NoError(t, migrate())
		var s migrationStatus
		require.Eventually(t, func() bool {
			return c.Execute(t.Context(), "query-migrate", nil, &s) == nil && s.Status == "active"
		}, patience, time.Millisecond)
		require.ErrorContains(t, migrate(), "There's a migration process in progress")
		require.NoError(t, c.Execute(t.Context(), "migrate_cancel", nil, nil))
		require.Equal(t, "cancelled", w.migrated(t, c).Status)
		require.Equal(t, "running", statusOf(t, c))
	})
	t.Run("migrate-silent", func(t *testing.T) {
		w, c, migrate := begin(t, "migrate-silent")
		require.ErrorIs(t, migrate(), context.DeadlineExceeded)
		c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := qmp.Dial(ctx, w.path("a.qmp"))
		require.ErrorIs(t, err, qmp.ErrBusy)
	})
	t.Run("no-ignore-shared", func(t *testing.T) {
		_, c, _ := begin(t, "no-ignore-shared")
		require.ErrorContains(t, c.Execute(t.Context(), "migrate-set-capabilities", ignoreShared(), nil),
			"Parameter 'capability' does not accept value 'x-ignore-shared'")
		var able []struct{ Capability string }
		require.NoError(t, c.Execute(t.Context(), "query-migrate-capabilities", nil, &able))
		require.NotEmpty(t, able)
		require.NotContains(t, able, struct{ Capability string }{"x-ignore-shared"})
	})
}

// What would change this computer is answered and not run.
func TestGuestKeepsToItself(t *testing.T) {
	checkLeaks(t)
	unchanged := thisComputer(t)
	server, private := guestServer(t, "")
	c, err := login(t, server.Addr(), "root", server.HostKey(), private)
	require.NoError(t, err)
	mark := filepath.Join(t.TempDir(), "mark")
	touch := "; touch " + mark
	for _, path := range ofTheGuest[1:] {
		_, _, err := run(t, c, "echo x >"+path+touch, "")
		require.NoError(t, err)
	}
	require.NoFileExists(t, mark)
	require.Len(t, server.Guest().Kept, len(ofTheGuest)-1)
	require.Equal(t, "echo x >/run/castra"+touch, server.Guest().Kept[0])

	_, stderr, err := run(t, c, "exec /run/castra/wake", "")
	requireStatus(t, err, notFound)
	require.Equal(t, "sh: 1: /run/castra/wake: not found\n", stderr)
	stdout, _, err := run(t, c, "for dir in /run /dev/shm; do cat >\"$dir/castra/wake\"; \"$file\"; done"+touch, "program")
	require.NoError(t, err)
	require.Equal(t, "/run/castra/wake\n", stdout)
	require.NoFileExists(t, mark)
	whole := wakeInput(t, "web-7", time.Unix(2_000_000_000, 5))
	change := func(at int, b byte) string { return whole[:at] + string([]byte{b}) + whole[at+1:] }
	for name, x := range map[string]struct {
		input  string
		status int
	}{
		"nothing": {"", 1}, "short": {whole[:351], 1}, "a time before all": {change(7, 0x80), 2}, "size": {change(20, 1), 3},
		"no hostname": {change(280, 0), 5}, "long hostname": {change(280, 65), 5},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := run(t, c, "exec /run/castra/wake", x.input)
			requireStatus(t, err, x.status)
		})
	}
	require.Empty(t, server.Guest().Wakes)
	_, _, err = run(t, c, "exec sudo -n /run/castra/wake", whole)
	require.NoError(t, err)
	g := server.Guest()
	require.Equal(t, "web-7", g.Hostname)
	require.Greater(t, g.ClockOff, time.Hour)
	stdout, _, err = run(t, c, "echo $CASTRA_FAKE_GUEST; echo $((CASTRA_FAKE_CLOCK / 10000000)); sudo -n -u root echo as root", "")
	require.NoError(t, err)
	require.Equal(t, "web-7\n200000\nas root\n", stdout)
	unchanged()
}

func requireStatus(t *testing.T, err error, status int) {
	t.Helper()
	var exit *ssh.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, status, exit.ExitStatus())
}
