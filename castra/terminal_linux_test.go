package castra

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pty is a terminal of 80 columns and 24 lines, with what it shows.
type pty struct {
	*testing.T
	master, slave *os.File
	mu            sync.Mutex
	shown         bytes.Buffer
}

func newPty(t *testing.T) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	p := &pty{T: t, master: master}
	number := 0
	p.control(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	p.slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	p.resize(80, 24)
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = p.readFrom(master) })
	t.Cleanup(func() {
		master.Close()
		p.slave.Close()
		reading.Wait()
	})
	return p
}

func (p *pty) readFrom(master *os.File) (int, error) {
	b := make([]byte, 4096)
	for {
		n, err := master.Read(b)
		p.mu.Lock()
		p.shown.Write(b[:n])
		p.mu.Unlock()
		if err != nil {
			return n, err
		}
	}
}

// control runs an ioctl without taking f from the poller, as Fd would.
func (p *pty) control(f *os.File, ioctl func(fd int) error) {
	p.Helper()
	raw, err := f.SyscallConn()
	require.NoError(p, err)
	var failed error
	require.NoError(p, raw.Control(func(fd uintptr) { failed = ioctl(int(fd)) }))
	require.NoError(p, failed)
}

// resize makes the kernel send SIGWINCH to who is in the foreground.
func (p *pty) resize(columns, lines uint16) {
	p.Helper()
	p.control(p.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: lines})
	})
}

// settings are what stty shows.
func (p *pty) settings() unix.Termios {
	p.Helper()
	var settings unix.Termios
	p.control(p.slave, func(fd int) error {
		got, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			settings = *got
		}
		return err
	})
	return settings
}

func (p *pty) raw() bool { return p.settings().Lflag&(unix.ECHO|unix.ICANON) == 0 }

func (p *pty) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown.String()
}

// types is a user who types a line.
func (p *pty) types(line string) {
	p.Helper()
	_, err := p.master.WriteString(line + "\r")
	require.NoError(p, err)
}

func (p *pty) shows(text string) {
	p.Helper()
	require.Eventually(p, func() bool { return bytes.Contains([]byte(p.text()), []byte(text)) }, patience, poll, "%q", text)
}

// start runs a magefile on the terminal, as a shell there does.
func (p *pty) start(w *world, args ...string) *exec.Cmd {
	p.Helper()
	cmd := exec.Command(compiled(w.T, "root"), args...)
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), "TERM=xterm-256color")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.slave, p.slave, p.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(p, cmd.Start())
	p.Cleanup(func() { _ = cmd.Process.Kill() }) // nothing, where it has ended
	return cmd
}

// ends gives the exit status, and waits no longer than a minute for it.
func (p *pty) ends(cmd *exec.Cmd) int {
	p.Helper()
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(2 * patience):
		require.NoError(p, cmd.Process.Kill())
		<-ended
		require.Fail(p, "it does not end", p.text())
	}
	return cmd.ProcessState.ExitCode()
}

// Failure bank 110: however a shell in a guest ends, the terminal is as it was.
func TestTerminalIsPutBack(t *testing.T) {
	magefiles.dir = t.TempDir()
	for name, c := range map[string]struct {
		args   []string
		end    func(p *pty, w *world, cmd *exec.Cmd)
		status func(status int) bool
	}{
		"exit":        {[]string{"ssh", "web"}, func(p *pty, _ *world, _ *exec.Cmd) { p.types("exit 7") }, func(s int) bool { return s == 7 }},
		"end of file": {[]string{"ssh", "web"}, func(p *pty, _ *world, _ *exec.Cmd) { p.types("\x04") }, func(s int) bool { return s == 0 }},
		"time limit":  {[]string{"-t", "6s", "ssh", "web"}, func(*pty, *world, *exec.Cmd) {}, func(s int) bool { return s != 0 }},
		"SIGTERM":     {[]string{"ssh", "web"}, sends(syscall.SIGTERM), func(s int) bool { return s != 0 }},
		"SIGHUP":      {[]string{"ssh", "web"}, sends(syscall.SIGHUP), func(s int) bool { return s != 0 }},
		"SIGINT":      {[]string{"ssh", "web"}, sends(syscall.SIGINT), func(s int) bool { return s != 0 }},
		"down":        {[]string{"ssh", "web"}, func(_ *pty, w *world, _ *exec.Cmd) { w.down() }, func(s int) bool { return s != 0 }},
		"QEMU killed": {[]string{"ssh", "web"}, func(_ *pty, w *world, _ *exec.Cmd) { w.kill("web-0") }, func(s int) bool { return s != 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			w := mageWorld(t, vm("web"))
			w.up()
			p := newPty(t)
			before := p.settings()
			require.False(t, p.raw())
			cmd := p.start(w, c.args...)
			require.Eventually(t, p.raw, patience, poll, "it is the guest's terminal meanwhile")
			p.types("echo in the $CASTRA_FAKE_GUEST")
			p.shows("in the web-0")
			c.end(p, w, cmd)
			status := p.ends(cmd)
			require.True(t, c.status(status), "%d\n%s", status, p.text())
			require.Equal(t, before, p.settings(), p.text())
			w.down()
		})
	}
}

func sends(s syscall.Signal) func(p *pty, w *world, cmd *exec.Cmd) {
	return func(p *pty, _ *world, cmd *exec.Cmd) { require.NoError(p, cmd.Process.Signal(s)) }
}

// Where there is no shell to be had, or none is asked for, the terminal is let be.
func TestTerminalIsLetBe(t *testing.T) {
	magefiles.dir = t.TempDir()
	w := mageWorld(t, vm("web"))
	p := newPty(t)
	before := p.settings()
	for _, c := range []struct {
		personality string
		args        []string
		status      int
	}{
		{"", []string{"ssh", "web"}, exitNoInput}, {"", []string{"ssh", "nosuch"}, exitNoInput},
		{"exit-1", []string{"up"}, exitFailed}, {"wrong-host-key", []string{"up"}, exitFailed}, {"", []string{"up"}, 0},
		{"", []string{"status"}, 0}, {"", []string{"logs"}, 0}, {"", []string{"down"}, 0}, {"", []string{"clean"}, 0},
	} {
		w.personality(c.personality)
		require.Equal(t, c.status, p.ends(p.start(w, c.args...)), "%v\n%s", c.args, p.text())
		require.Equal(t, before, p.settings(), "%v", c.args)
	}
	w.cleanSlate()
}

// The guest's terminal is of the user's kind and size, and keeps to it.
func TestTerminalOfTheGuest(t *testing.T) {
	magefiles.dir = t.TempDir()
	w := mageWorld(t, vm("web"))
	w.up()
	p := newPty(t)
	cmd := p.start(w, "ssh", "web")
	require.Eventually(t, p.raw, patience, poll)
	p.types(`echo "<$TERM $(stty size)>"`)
	p.shows("<xterm-256color 24 80>")
	p.resize(132, 50)
	require.Eventually(t, func() bool {
		p.types(`echo "<$(stty size)>"`)
		time.Sleep(20 * time.Millisecond) // not to flood the shell with lines
		return bytes.Contains([]byte(p.text()), []byte("<50 132>"))
	}, patience, poll, "a new size arrives after a while")
	p.types("exit 255")
	require.Equal(t, 255, p.ends(cmd), "the shell's own status, whatever it is")
	w.down()
}
