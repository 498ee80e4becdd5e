package qemutest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// terminal is the pseudo terminal a session has asked for.
type terminal struct {
	master, slave *os.File
	kind          string // TERM
	drained       chan struct{}
}

// newTerminal serves a pty-req.
func newTerminal(payload []byte) (*terminal, error) {
	var v struct {
		Term          string
		Columns, Rows uint32
		Width, Height uint32
		Modes         string
	}
	if err := ssh.Unmarshal(payload, &v); err != nil {
		return nil, err
	}
	master, slave, err := openPty()
	if err != nil {
		return nil, err
	}
	t := &terminal{master: master, slave: slave, kind: v.Term, drained: make(chan struct{})}
	if err := t.setSize(v.Columns, v.Rows); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// resize serves a window-change.
func (t *terminal) resize(payload []byte) bool {
	var v struct{ Columns, Rows, Width, Height uint32 }
	return t != nil && ssh.Unmarshal(payload, &v) == nil && t.setSize(v.Columns, v.Rows) == nil
}

// setSize makes the kernel send SIGWINCH to who is in the foreground.
func (t *terminal) setSize(columns, rows uint32) error {
	return control(t.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)})
	})
}

// attach makes t the controlling terminal of cmd, and returns its input.
func (t *terminal) attach(cmd *exec.Cmd) io.WriteCloser {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.slave, t.slave, t.slave
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = false, true, true
	cmd.Env = append(cmd.Env, "TERM="+t.kind)
	return terminalInput{t.master}
}

// terminalInput stays open at the client's end of file, as sshd leaves it.
type terminalInput struct{ io.Writer }

func (terminalInput) Close() error { return nil }

// show copies what the terminal shows, until its last user is gone.
func (t *terminal) show(w io.Writer) {
	defer close(t.drained)
	t.slave.Close() // the command has it now
	_, _ = io.Copy(w, t.master)
}

// drain waits until what the command wrote before its end is shown. What it
// left behind in the background may hold the terminal for longer.
func (t *terminal) drain() {
	_ = t.master.SetReadDeadline(time.Now().Add(time.Second))
	<-t.drained
}

func (t *terminal) close() {
	if t == nil {
		return
	}
	t.master.Close()
	t.slave.Close()
}

// control runs an ioctl without taking f from the poller, as Fd would.
func control(f *os.File, ioctl func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = ioctl(int(fd)) })
	return errors.Join(err, failed)
}
