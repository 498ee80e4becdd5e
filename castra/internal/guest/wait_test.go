package guest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"castra.example/castra/castra/internal/qemutest"
)

func TestDial(t *testing.T) {
	server, login := fakeGuest(t, qemutest.SSHOptions{})
	dial(t, login)

	_, other := qemutest.NewKey(t)
	wrong := login
	wrong.HostKey = other
	_, err := Dial(t.Context(), wrong)
	var hostKey *HostKeyError
	require.ErrorAs(t, err, &hostKey)
	key, _, _, _, _ := ssh.ParseAuthorizedKey([]byte(server.HostKey()))
	require.Equal(t, ssh.FingerprintSHA256(key), hostKey.Got)
	require.Contains(t, err.Error(), "got SHA256:")
	require.NotEqual(t, hostKey.Got, hostKey.Want)
	require.NotEmpty(t, hostKey.Hint())

	wrong = login
	wrong.PrivateKey, _ = qemutest.NewKey(t)
	_, err = Dial(t.Context(), wrong)
	var refused *LoginError
	require.ErrorAs(t, err, &refused)
	require.Contains(t, err.Error(), "as root: the guest refused the key")

	server.Close()
	_, err = Dial(t.Context(), login)
	var unreachable *UnreachableError
	require.ErrorAs(t, err, &unreachable)
	require.Contains(t, err.Error(), "could not connect to "+login.Addr)

	wrong.PrivateKey = []byte("no key")
	_, err = Dial(t.Context(), wrong)
	require.ErrorContains(t, err, "identity for "+login.Addr)
	wrong = login
	wrong.HostKey = "no key"
	_, err = Dial(t.Context(), wrong)
	require.ErrorContains(t, err, "pinned host key")
}

// A server that has no key of the pinned type is not our guest either.
func TestDialOtherHostKeyType(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	public, err := ssh.NewPublicKey(&key.PublicKey)
	require.NoError(t, err)
	login.HostKey = string(ssh.MarshalAuthorizedKey(public))
	_, err = Dial(t.Context(), login)
	var hostKey *HostKeyError
	require.ErrorAs(t, err, &hostKey)
	require.Empty(t, hostKey.Got)
}

func TestWaitUntilBooted(t *testing.T) {
	server, login := fakeGuest(t, qemutest.SSHOptions{})
	// The forward accepts and closes, as QEMU does before sshd listens.
	var tries atomic.Int32
	addr := listen(t, func(conn net.Conn) {
		if tries.Add(1) <= 5 {
			return
		}
		relay(conn, server.Addr())
	})
	login.Addr = addr
	var heard []error
	client, err := Wait(limit(t, 20*time.Second), login, func(n int, err error) {
		heard = append(heard, err)
		require.Len(t, heard, n)
	})
	require.NoError(t, err)
	defer client.Close()
	require.Len(t, heard, 5)
	require.ErrorContains(t, heard[0], "closed before an SSH banner")
}

func relay(conn net.Conn, to string) {
	guest, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer guest.Close()
	go func() {
		_, _ = io.Copy(guest, conn)
		guest.Close()
	}()
	_, _ = io.Copy(conn, guest)
}

// Silence for a while, as before the guest has a network: a later try wins
// while the first is still open, and the older ones are closed.
func TestWaitPastSilence(t *testing.T) {
	server, login := fakeGuest(t, qemutest.SSHOptions{})
	var tries atomic.Int32
	login.Addr = listen(t, func(conn net.Conn) {
		if tries.Add(1) <= 2 {
			_, _ = io.Copy(io.Discard, conn)
			return
		}
		relay(conn, server.Addr())
	})
	client, err := Wait(limit(t, 20*time.Second), login, nil)
	require.NoError(t, err)
	require.NoError(t, client.Close())
	require.EqualValues(t, 3, tries.Load())
}

// A banner slower than the first limit is not cut off for ever.
func TestWaitSlowBanner(t *testing.T) {
	server, login := fakeGuest(t, qemutest.SSHOptions{})
	login.Addr = listen(t, func(conn net.Conn) {
		time.Sleep(bannerMin + 100*time.Millisecond)
		relay(conn, server.Addr())
	})
	client, err := Wait(limit(t, 30*time.Second), login, nil)
	require.NoError(t, err)
	require.NoError(t, client.Close())
}

func TestWaitWrongHostKeyIsFinal(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	_, login.HostKey = qemutest.NewKey(t)
	_, err := Wait(limit(t, 20*time.Second), login, func(int, error) { t.Error("tried again") })
	var hostKey *HostKeyError
	require.ErrorAs(t, err, &hostKey)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
}

// A refused login is tried again, seldom, and is what the error tells.
func TestWaitRefusedLogin(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	login.PrivateKey, _ = qemutest.NewKey(t)
	tries := 0
	_, err := Wait(limit(t, 700*time.Millisecond), login, func(int, error) { tries++ })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var refused *LoginError
	require.ErrorAs(t, err, &refused)
	require.LessOrEqual(t, tries, 4)
	require.GreaterOrEqual(t, tries, 1)
}

func TestWaitShellThatRefuses(t *testing.T) {
	login := hostileGuest(t, true, func(open ssh.NewChannel) {
		channel, _ := accept(open)
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{1}))
		channel.Close()
	})
	_, err := Wait(limit(t, 500*time.Millisecond), login, nil)
	var refused *LoginError
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "cannot run `true`")
}

// F-3 and failure bank 73: whatever answers, Wait ends with its context and
// says what it saw last.
func TestWaitHostileF3(t *testing.T) {
	half := make(chan struct{})
	defer close(half)
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  string
	}{
		"silent":            {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "could not connect"},
		"accept and close":  {func(net.Conn) {}, "closed before an SSH banner"},
		"http":              {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, `not SSH: the first bytes are "HTTP"`},
		"half a banner":     {func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-half"); _, _ = io.Copy(io.Discard, c) }, "waited"},
		"banner, then gone": {func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-gone\r\n") }, "handshake failed"},
		"endless banner": {func(c net.Conn) {
			for line := []byte("SSH-"); ; line = []byte("xxxxxxxxxxxxxxxx") {
				if _, err := c.Write(line); err != nil {
					return
				}
			}
		}, "handshake failed"},
		"one byte at a time": {func(c net.Conn) {
			for _, b := range []byte("SSH-2.0-slow_and_never_done") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}, "waited"},
	} {
		t.Run(name, func(t *testing.T) {
			private, _ := qemutest.NewKey(t)
			_, host := qemutest.NewKey(t)
			login := Login{Addr: listen(t, c.serve), User: "root", PrivateKey: private, HostKey: host}
			_, err := Wait(limit(t, 600*time.Millisecond), login, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, c.want)
			var unreachable *UnreachableError
			require.ErrorAs(t, err, &unreachable)
		})
	}
}

func TestDialHostileF3(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"silent": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"key exchange hangs": func(c net.Conn) {
			_, _ = io.WriteString(c, "SSH-2.0-hang\r\n")
			_, _ = io.Copy(io.Discard, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			private, _ := qemutest.NewKey(t)
			_, host := qemutest.NewKey(t)
			login := Login{Addr: listen(t, serve), User: "root", PrivateKey: private, HostKey: host}
			_, err := Dial(limit(t, 200*time.Millisecond), login)
			require.ErrorIs(t, err, context.DeadlineExceeded)

			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("taken down")
			time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
			_, err = Dial(ctx, login)
			require.ErrorIs(t, err, why)
		})
	}
}

// The login itself hangs: the server has the key and never says yes or no.
func TestDialAuthHangsF3(t *testing.T) {
	private, _ := qemutest.NewKey(t)
	hostPEM, hostKey := qemutest.NewKey(t)
	signer, err := ssh.ParsePrivateKey(hostPEM)
	require.NoError(t, err)
	release := make(chan struct{})
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
		<-release
		return nil, errors.New("no")
	}}
	config.AddHostKey(signer)
	addr := listen(t, func(c net.Conn) { _, _, _, _ = ssh.NewServerConn(c, config) })
	t.Cleanup(func() { close(release) })
	_, err = Dial(limit(t, 200*time.Millisecond), Login{Addr: addr, User: "root", PrivateKey: private, HostKey: hostKey})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
