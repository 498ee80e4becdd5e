package qemutest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// session is one SSH session channel. It runs at most one command.
type session struct {
	server  *SSHServer
	channel ssh.Channel
	user    string
	env     []string
	term    *terminal // nil: none was asked for
}

func (s *session) serve(ctx context.Context, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	var command sync.WaitGroup
	defer func() {
		command.Wait()
		s.term.close()
	}()
	defer cancel() // a client that is gone takes its command along
	defer s.channel.Close()
	started := false
	signals := make(chan os.Signal, 8)
	for r := range requests {
		line := ""
		ok := false
		switch {
		case r.Type == "env":
			var v struct{ Name, Value string }
			if ok = ssh.Unmarshal(r.Payload, &v) == nil; ok {
				s.env = append(s.env, v.Name+"="+v.Value)
			}
		case r.Type == "pty-req" && s.term == nil && !started:
			var err error
			s.term, err = newTerminal(r.Payload)
			ok = err == nil
		case r.Type == "window-change":
			ok = s.term.resize(r.Payload)
		case r.Type == "signal":
			ok = forward(signals, r.Payload)
		case r.Type == "exec" && !started:
			var v struct{ Command string }
			ok = ssh.Unmarshal(r.Payload, &v) == nil
			line, started = v.Command, ok
		case r.Type == "shell" && !started:
			line, started, ok = "exec sh", true, true
		}
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
		if line != "" {
			command.Go(func() { s.run(ctx, line, signals) })
		}
	}
}

func forward(signals chan<- os.Signal, payload []byte) bool {
	var v struct{ Name string }
	if ssh.Unmarshal(payload, &v) != nil {
		return false
	}
	number := unix.SignalNum("SIG" + v.Name)
	if number == 0 {
		return false
	}
	select {
	case signals <- number:
		return true
	default:
		return false
	}
}

func (s *session) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = s.server.options.Dir
	cmd.Env = append([]string{
		"HOME=" + s.server.options.Dir, "USER=" + s.user, "PATH=" + s.server.stubs + string(os.PathListSeparator) + os.Getenv("PATH"),
	}, append(s.server.guest.environment(), s.env...)...)
	cmd.SysProcAttr = commandAttr()
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// connect gives cmd its streams and starts it.
func (s *session) connect(cmd *exec.Cmd) (stdin io.WriteCloser, err error) {
	if s.term != nil {
		stdin = s.term.attach(cmd)
	} else {
		cmd.Stdout, cmd.Stderr = s.channel, s.channel.Stderr()
		if stdin, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	return stdin, cmd.Start()
}

func (s *session) run(ctx context.Context, line string, signals <-chan os.Signal) {
	defer s.channel.Close()
	if code, served := s.server.guest.serve(line, s.channel, s.channel, s.channel.Stderr()); served {
		s.exit(code, "")
		return
	}
	cmd := s.command(ctx, line)
	stdin, err := s.connect(cmd)
	if err != nil {
		_, _ = io.WriteString(s.channel.Stderr(), err.Error()+"\n")
		s.exit(127, "")
		return
	}
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer s.channel.Close() // ends the copy of stdin
	ended := make(chan struct{})
	defer close(ended)
	helpers.Go(func() {
		_, _ = io.Copy(stdin, s.channel)
		stdin.Close()
	})
	helpers.Go(func() {
		for {
			select {
			case signal := <-signals:
				_ = unix.Kill(-cmd.Process.Pid, signal.(syscall.Signal))
			case <-ended:
				return
			}
		}
	})
	if s.term == nil {
		s.exit(status(cmd.Wait()))
		return
	}
	defer s.term.close() // a full terminal must not hold the copy of stdin
	helpers.Go(func() { s.term.show(s.channel) })
	err = cmd.Wait()
	s.term.drain()
	s.exit(status(err))
}

// status splits what Wait returned into an exit status and a signal's name.
func status(err error) (code int, signal string) {
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return 0, ""
	case !errors.As(err, &exit):
		return 255, ""
	}
	if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 0, strings.TrimPrefix(unix.SignalName(w.Signal()), "SIG")
	}
	return exit.ExitCode(), ""
}

func (s *session) exit(code int, signal string) {
	_ = s.channel.CloseWrite()
	if signal != "" {
		_, _ = s.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal string
			Core   bool
			Text   string
			Lang   string
		}{Signal: signal}))
		return
	}
	_, _ = s.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(code)}))
}
