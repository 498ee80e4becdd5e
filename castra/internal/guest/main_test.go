package guest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"castra.example/castra/castra/internal/qemutest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeGuest is the shared fake guest with one key that may log in.
func fakeGuest(t *testing.T, o qemutest.SSHOptions) (*qemutest.SSHServer, Login) {
	t.Helper()
	private, public := qemutest.NewKey(t)
	o.AuthorizedKeys = append(o.AuthorizedKeys, public)
	server := qemutest.NewSSHServer(t, o)
	return server, Login{Addr: server.Addr(), User: "root", PrivateKey: private, HostKey: server.HostKey()}
}

func dial(t *testing.T, login Login) *Client {
	t.Helper()
	client, err := Dial(t.Context(), login)
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// bareGuest has only the named programs in its PATH.
func bareGuest(t *testing.T, programs ...string) Login {
	t.Helper()
	bin := t.TempDir()
	for _, name := range programs {
		path, err := exec.LookPath(name)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(bin, name)))
	}
	t.Setenv("PATH", bin)
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	return login
}

// listen serves every connection with its own goroutine; all of them end with
// the test.
func listen(t *testing.T, serve func(conn net.Conn)) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// hostileGuest lets the key in and then treats each session as told. The
// global requests are answered only where answer is set.
func hostileGuest(t *testing.T, answer bool, session func(ssh.NewChannel)) Login {
	t.Helper()
	private, public := qemutest.NewKey(t)
	hostPEM, hostKey := qemutest.NewKey(t)
	signer, err := ssh.ParsePrivateKey(hostPEM)
	require.NoError(t, err)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) != public {
			return nil, os.ErrPermission
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	addr := listen(t, func(conn net.Conn) {
		server, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		defer server.Close()
		var running sync.WaitGroup
		defer running.Wait()
		running.Go(func() {
			for r := range requests {
				if answer && r.WantReply {
					_ = r.Reply(false, nil)
				}
			}
		})
		for open := range channels {
			running.Go(func() { session(open) })
		}
	})
	return Login{Addr: addr, User: "root", PrivateKey: private, HostKey: hostKey}
}

// accept takes a session and the exec request in it.
func accept(open ssh.NewChannel) (ssh.Channel, <-chan *ssh.Request) {
	channel, requests, err := open.Accept()
	if err != nil {
		return nil, nil
	}
	for r := range requests {
		_ = r.Reply(true, nil)
		if r.Type == "exec" {
			break
		}
	}
	return channel, requests
}

func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
