package qemutest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Stranger is a process that has nothing to do with any VM and stands where
// one is looked for: it holds locks and serves sockets as it is told. Every
// signal is blocked in it, so that each that was sent stays to be counted.
type Stranger struct {
	PID   int
	t     testing.TB
	in    io.Writer
	out   *bufio.Reader
	ended chan struct{}
}

// StartStranger starts one that ends with the test, and that fails the test
// if anybody has done anything to it by then. Its working directory is dir, or
// the root of the file system.
func StartStranger(t testing.TB, dir string) *Stranger {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("stranger: %v", err)
	}
	cmd := exec.CommandContext(context.Background(), self)
	cmd.Args, cmd.Dir, cmd.Stderr = []string{strangerName}, dir, os.Stderr
	if dir == "" {
		cmd.Dir = "/"
	}
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if inErr != nil || outErr != nil {
		t.Fatalf("stranger: %v %v", inErr, outErr)
	}
	if err := startBlocked(cmd); err != nil {
		t.Fatalf("stranger: %v", err)
	}
	s := &Stranger{PID: cmd.Process.Pid, t: t, in: in, out: bufio.NewReader(out), ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		if harm := s.Harm(); len(harm) > 0 {
			t.Errorf("a stranger was harmed: %v", harm)
		}
		in.Close()
		_ = cmd.Process.Kill()
		<-s.ended
	})
	return s
}

// startBlocked starts a program all of whose signals are blocked.
func startBlocked(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return err
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) }()
	return cmd.Start()
}

// Harm lists the signals that were sent to the stranger and the orders that
// its monitors were given; "killed" alone where it lives no more.
func (s *Stranger) Harm() []string {
	select {
	case <-s.ended:
		return []string{"killed"}
	default:
	}
	harm, err := Pending(s.PID)
	if err != nil {
		return []string{err.Error()}
	}
	return append(harm, strings.Fields(s.tell("harm"))...)
}

// Pending lists the signals that wait at a process in which all are blocked.
func Pending(pid int) ([]string, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	var harm []string
	for line := range bytes.Lines(status) {
		if state, ok := bytes.CutPrefix(line, []byte("State:\t")); ok && bytes.ContainsAny(state[:1], "TtZX") {
			harm = append(harm, "state "+string(state[:1]))
		}
		// Those sent to the process; the runtime sends its own to threads.
		mask, ok := bytes.CutPrefix(line, []byte("ShdPnd:\t"))
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(string(bytes.TrimSpace(mask)), 16, 64)
		if err != nil {
			return nil, err
		}
		for n := range 64 {
			if set&(1<<n) != 0 {
				harm = append(harm, unix.SignalName(syscall.Signal(n+1)))
			}
		}
	}
	return harm, nil
}

// Lock takes the lock on a file as a QEMU does on its pidfile.
func (s *Stranger) Lock(path string) { s.order("lock", path) }

// LockForReading takes a lock on a whole file that lets others read.
func (s *Stranger) LockForReading(path string) { s.order("read", path) }

// LockImage takes the locks on a disk that a QEMU takes which writes to it.
func (s *Stranger) LockImage(path string) { s.order("image", path) }

// Serve listens at path and talks as script says: qmp, with the UUID that is
// given, or one of the ways to talk otherwise in scripts.
func (s *Stranger) Serve(path, script, uuid string) { s.order("serve", path, script, uuid) }

// Forget gives back all locks and sockets. The files stay.
func (s *Stranger) Forget() { s.order("forget") }

func (s *Stranger) order(words ...string) {
	s.t.Helper()
	if reply := s.tell(words...); reply != "" {
		s.t.Errorf("stranger: %q: %s", words, reply)
	}
}

func (s *Stranger) tell(words ...string) string {
	line, err := json.Marshal(words)
	if err == nil {
		_, err = s.in.Write(append(line, '\n'))
	}
	if err != nil {
		return err.Error()
	}
	reply, err := s.out.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(reply)
}

// stranger is the process itself.
type stranger struct {
	files     []*os.File
	listeners []net.Listener
	orders    chan string
}

// runStranger ends when the test does, however that ends: its input is closed.
func runStranger() int {
	s := &stranger{orders: make(chan string, 1<<16)}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var words []string
		if err := json.Unmarshal(lines.Bytes(), &words); err != nil {
			return complain("stranger: %v", err)
		}
		reply, err := s.do(words[0], words[1:])
		if err != nil {
			reply = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(reply)
	}
	return 0
}

func (s *stranger) do(word string, args []string) (string, error) {
	switch word {
	case "harm":
		var harm []string
		for len(s.orders) > 0 {
			harm = append(harm, <-s.orders)
		}
		return strings.Join(harm, " "), nil
	case "forget":
		for _, f := range s.files {
			f.Close()
		}
		for _, ln := range s.listeners {
			ln.Close()
		}
		s.files, s.listeners = nil, nil
		return "", nil
	case "serve":
		return "", s.serve(args[0], args[1], args[2])
	}
	flag := os.O_RDWR | os.O_CREATE
	f, err := os.OpenFile(args[0], flag, 0o600)
	if err != nil {
		return "", err
	}
	s.files = append(s.files, f)
	switch word {
	case "lock":
		return "", lockWhole(f)
	case "read":
		return "", unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart})
	case "image":
		return "", lockImage(f)
	}
	return "", fmt.Errorf("unknown word %q", word)
}

func (s *stranger) serve(path, script, uuid string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	_ = os.Remove(path)
	address := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)) // short enough
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: address})
	if err != nil {
		return err
	}
	ln.SetUnlinkOnClose(false)
	s.listeners = append(s.listeners, ln)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				s.talk(conn, script, uuid)
			}()
		}
	}()
	return nil
}
