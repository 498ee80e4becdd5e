package guest

import (
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

// F-4: who is not QEMU gets no byte, not even of a greeting, and ends the wait.
func TestImpostorGetsNothing(t *testing.T) {
	var got atomic.Int64
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	login.Addr = listen(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "SSH-2.0-impostor\r\n")
		n, _ := io.Copy(io.Discard, c)
		got.Add(n)
	})
	login.Listener = func() error { return &ImpostorError{Addr: login.Addr, Owner: "pid 7 (nc)"} }
	var impostor *ImpostorError
	_, err := Dial(limit(t, 20*time.Second), login)
	require.ErrorAs(t, err, &impostor)
	require.EqualError(t, err, login.Addr+" is not the guest's: pid 7 (nc) listens there, and nothing was sent to it")
	require.NotEmpty(t, impostor.Hint())
	_, err = Wait(limit(t, 20*time.Second), login, func(int, error) { t.Error("tried again") })
	require.ErrorAs(t, err, &impostor)
	require.Zero(t, got.Load())
}

// Nobody listening any more is no impostor: Wait goes on.
func TestListenerGone(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	gone := errors.New("nobody listens there")
	asked := 0
	login.Listener = func() error {
		if asked++; asked < 3 {
			return gone
		}
		return nil
	}
	_, err := Dial(t.Context(), login)
	require.ErrorIs(t, err, gone)
	require.ErrorAs(t, err, new(*UnreachableError))
	client, err := Wait(limit(t, 20*time.Second), login, nil)
	require.NoError(t, err)
	require.NoError(t, client.Close())
	require.Equal(t, 3, asked)
}

// F-9: a guest that never asks for the key lets in whoever comes.
func TestOpenLogin(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	require.False(t, dial(t, login).Open)
	_, login = fakeGuest(t, qemutest.SSHOptions{Personality: "open-login"})
	require.True(t, dial(t, login).Open)
	login.PrivateKey, _ = qemutest.NewKey(t)
	client, err := Wait(limit(t, 20*time.Second), login, nil)
	require.NoError(t, err)
	defer client.Close()
	require.True(t, client.Open)
}

// F-5: the right key, a wrong one, one of another type, and one that changes
// between the tries of a boot, for both ways in.
func TestHostKeyF5(t *testing.T) {
	right, login := fakeGuest(t, qemutest.SSHOptions{})
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(right.HostKey()))
	require.NoError(t, err)
	wrong := qemutest.NewSSHServer(t, qemutest.SSHOptions{Personality: "open-login"})
	for name, c := range map[string]struct {
		servers []string // of each connection; the last is that of all later ones
		fails   int      // the login that is refused, counted from 1; 0 is none
	}{
		"right":                {[]string{right.Addr()}, 0},
		"wrong":                {[]string{wrong.Addr()}, 1},
		"changed after a look": {[]string{"", wrong.Addr()}, 1},
		"changed after login":  {[]string{right.Addr(), wrong.Addr()}, 2},
		"changed back":         {[]string{wrong.Addr(), right.Addr()}, 1},
	} {
		for way, in := range map[string]func(Login) (*Client, error){
			"Dial": func(l Login) (*Client, error) { return Dial(limit(t, 20*time.Second), l) },
			"Wait": func(l Login) (*Client, error) { return Wait(limit(t, 20*time.Second), l, nil) },
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				var n atomic.Int32
				to := login
				to.Addr = listen(t, func(conn net.Conn) {
					at := min(int(n.Add(1)), len(c.servers)) - 1
					if c.servers[at] != "" { // else closed, as before sshd listens
						relay(conn, c.servers[at])
					}
				})
				if way == "Dial" && c.servers[0] == "" {
					_, err := in(to)
					require.ErrorAs(t, err, new(*UnreachableError))
				}
				for i := 1; i <= 2; i++ {
					client, err := in(to)
					if i != c.fails {
						require.NoError(t, err)
						require.NoError(t, client.Close())
						continue
					}
					var stranger *HostKeyError
					require.ErrorAs(t, err, &stranger)
					require.Equal(t, ssh.FingerprintSHA256(public), stranger.Want)
					require.NotEqual(t, stranger.Want, stranger.Got)
					break
				}
			})
		}
	}
}
