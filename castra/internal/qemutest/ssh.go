package qemutest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSHOptions describe an SSHServer. The zero value is a server nobody can log
// in to, with a key of its own.
type SSHOptions struct {
	HostKeyPEM     []byte   // OpenSSH private key; nil: a new ed25519 key
	AuthorizedKeys []string // authorized_keys lines that are let in
	User           string   // the only user let in; "": any
	Dir            string   // home and working directory of commands; "": a temporary one
	Name           string   // the guest's host name, in CASTRA_FAKE_GUEST of each command
	Personality    Personality
}

// SSHServer accepts SSH connections and runs commands with `sh -c` on this
// computer, but for those that would change it, see [Guest]. Until it has booted (Personality "slow-boot=1s"), connections are accepted
// and nothing is said.
type SSHServer struct {
	options SSHOptions
	guest   *guest
	stubs   string // directory of programs that go before those of this computer
	signer  ssh.Signer
	config  *ssh.ServerConfig
	ln      net.Listener
	booted  <-chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// NewSSHServer starts a server on a free port of 127.0.0.1. It is closed when
// the test ends.
func NewSSHServer(t testing.TB, o SSHOptions) *SSHServer {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("fake guest: %v", err)
	}
	guest, bin := newGuest(o.Name, ""), t.TempDir()
	guest.run(true)
	if err := writeStubs(bin); err != nil {
		t.Fatalf("fake guest: %v", err)
	}
	s, err := serveSSH(ln, o, guest, bin, after(o.Personality.Duration("slow-boot", 0)))
	if err != nil {
		t.Fatalf("fake guest: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// serveSSH takes ln over and speaks once booted is closed.
func serveSSH(ln net.Listener, o SSHOptions, guest *guest, bin string, booted <-chan struct{}) (*SSHServer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &SSHServer{options: o, guest: guest, stubs: bin, ln: ln, booted: booted, ctx: ctx, cancel: cancel}
	if err := s.configure(); err != nil {
		cancel()
		ln.Close()
		return nil, err
	}
	s.running.Go(s.accept)
	return s, nil
}

func (s *SSHServer) configure() error {
	var err error
	if s.options.HostKeyPEM == nil || s.options.Personality.Has("wrong-host-key") {
		s.signer, err = newSigner()
	} else {
		s.signer, err = ssh.ParsePrivateKey(s.options.HostKeyPEM)
	}
	if err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	allowed, err := parseAuthorizedKeys(s.options.AuthorizedKeys)
	if err != nil {
		return err
	}
	s.config = &ssh.ServerConfig{
		ServerVersion: "SSH-2.0-castra_fake_guest",
		PublicKeyCallback: func(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if s.options.Personality.Has("refuse-login") || s.options.User != "" && conn.User() != s.options.User {
				return nil, errors.New("refused")
			}
			for _, a := range allowed {
				if bytes.Equal(a.Marshal(), key.Marshal()) {
					return nil, nil
				}
			}
			return nil, errors.New("unknown key")
		},
	}
	s.config.NoClientAuth = s.options.Personality.Has("open-login")
	s.config.AddHostKey(s.signer)
	return nil
}

// Addr is the server's host:port.
func (s *SSHServer) Addr() string { return s.ln.Addr().String() }

// HostKey is the server's public key as an authorized_keys line.
func (s *SSHServer) HostKey() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.signer.PublicKey())))
}

// Guest is what became of the server's guest.
func (s *SSHServer) Guest() Guest { return s.guest.state() }

// Close ends all connections, kills running commands and waits for both.
func (s *SSHServer) Close() {
	s.cancel()
	s.ln.Close()
	s.running.Wait()
}

func (s *SSHServer) accept() {
	for {
		conn, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.running.Go(func() { s.serve(conn) })
	}
}

func (s *SSHServer) serve(conn net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	select {
	case <-s.booted:
	case <-s.ctx.Done():
	}
	if s.options.Personality.Has("no-ssh") {
		<-s.ctx.Done()
		return
	}
	server, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		return
	}
	defer server.Close()
	var sessions sync.WaitGroup
	defer sessions.Wait()
	sessions.Go(func() { ssh.DiscardRequests(requests) })
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	for open := range channels {
		if open.ChannelType() != "session" {
			_ = open.Reject(ssh.UnknownChannelType, "only sessions are served")
			continue
		}
		channel, in, err := open.Accept()
		if err != nil {
			return
		}
		session := &session{channel: channel, server: s, user: server.User()}
		sessions.Go(func() { session.serve(ctx, in) })
	}
}

func newSigner() (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(key)
}

// NewKey returns a new ed25519 key as an OpenSSH PEM and an authorized_keys
// line.
func NewKey(t testing.TB) (private []byte, public string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

func parseAuthorizedKeys(lines []string) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for _, line := range lines {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("authorized key %q: %w", line, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// after returns a channel that is closed when d has passed.
func after(d time.Duration) <-chan struct{} {
	passed := make(chan struct{})
	time.AfterFunc(d, func() { close(passed) })
	return passed
}
