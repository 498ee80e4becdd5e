package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// screen keeps what a program prints.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows waits for text, and tells what is there if it does not come.
func (s *screen) shows(t *testing.T, text string) {
	t.Helper()
	if !assert.Eventually(t, func() bool { return strings.Contains(s.String(), text) }, time.Minute, 20*time.Millisecond) {
		require.Fail(t, "not shown", "%q in\n%q", text, s.String())
	}
}

// openTerminal gives both ends of a new one, and what it shows.
func openTerminal(t *testing.T) (master, slave *os.File, shown *screen) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	number := 0
	ioctl(t, master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	shown = &screen{}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = master.WriteTo(shown) })
	t.Cleanup(func() {
		master.Close()
		slave.Close()
		reading.Wait()
	})
	return master, slave, shown
}

// ioctl leaves f with the poller, which Fd would not.
func ioctl(t *testing.T, f *os.File, do func(fd int) error) {
	t.Helper()
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	var failed error
	require.NoError(t, raw.Control(func(fd uintptr) { failed = do(int(fd)) }))
	require.NoError(t, failed)
}

func resize(t *testing.T, master *os.File, columns, lines uint16) {
	t.Helper()
	ioctl(t, master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: lines})
	})
}

// start runs a target beside the test, for at most verbLimit.
func (p *project) start(setUp func(cmd *exec.Cmd), args ...string) *exec.Cmd {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), verbLimit)
	cmd, _, _ := p.command(ctx, args...)
	setUp(cmd)
	require.NoError(p.t, cmd.Start())
	p.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // an error where it has been waited for
	})
	return cmd
}

// A real guest's serial port is followed, and a shell in it has the user's terminal.
func TestFollowAndTerminal(t *testing.T) {
	p := newProject(t, oneVM)
	p.must("up")

	followed := &screen{}
	follow := p.start(func(cmd *exec.Cmd) { cmd.Stdout = followed }, "logs", "-vm=vm", "-tail=1", "-follow")
	followed.shows(t, "vm-0 serial")
	p.must("exec", "vm", "echo news from $(hostname) > /dev/ttyS0")
	followed.shows(t, "news from vm-0")
	require.NoError(t, follow.Process.Signal(os.Interrupt))
	require.NoError(t, follow.Wait(), followed)

	master, slave, shown := openTerminal(t)
	resize(t, master, 80, 24)
	ssh := p.start(func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.Env = append(cmd.Env, "TERM=xterm")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}, "ssh", "vm")
	types := func(text string) {
		_, err := master.WriteString(text)
		require.NoError(t, err)
	}
	types(`echo "<$TERM $(stty size)>"` + "\r")
	shown.shows(t, "<xterm 24 80>")

	types("vi /root/page\r")
	shown.shows(t, "/root/page 1/1")
	resize(t, master, 100, 30)
	shown.shows(t, "\x1b[29;1H~") // vi has drawn itself anew, over 30 lines
	types("itext\x1b")            // what comes right behind Escape would be taken for part of a key
	shown.shows(t, "- /root/page [Modified]")
	types(":wq\r")
	shown.shows(t, "\x1b[?1049l") // it has left the screen
	types(`echo "<$(cat /root/page) $(stty size)>"` + "\r")
	shown.shows(t, "<text 30 100>")
	types("exit 7\r")
	err := ssh.Wait()
	require.Equal(t, 7, ssh.ProcessState.ExitCode(), "%v\n%s", err, shown)

	p.must("down")
	p.cleanSlate()
}
