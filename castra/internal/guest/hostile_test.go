package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

// hostile is one way to serve SSH badly, from the first byte or, with session
// set, from the first session on.
type hostile struct {
	serve   func(net.Conn)
	session func(ssh.NewChannel)
	hostKey string // of serve, where it comes to that
	// ends says that the server itself ends the talk, so that no limit is needed.
	ends bool
}

func hold(c io.Reader) { _, _ = io.Copy(io.Discard, c) }

// personalities are the hostile servers of F-3.
func personalities(t *testing.T) map[string]hostile {
	drain := func(requests <-chan *ssh.Request) {
		for r := range requests {
			if r.WantReply {
				_ = r.Reply(true, nil)
			}
		}
	}
	flood := func(write func(ssh.Channel, []byte) error) func(ssh.NewChannel) {
		return func(open ssh.NewChannel) {
			channel, requests := accept(open)
			go drain(requests)
			for block := make([]byte, 32<<10); write(channel, block) == nil; {
			}
		}
	}
	return map[string]hostile{
		"silent":           {serve: func(c net.Conn) { hold(c) }},
		"closes at once":   {serve: func(net.Conn) {}, ends: true},
		"banner at 1 B/s":  {serve: dripping("SSH-2.0-slow_and_never_done")},
		"endless banner":   {serve: func(c net.Conn) { _, _ = io.Copy(c, endless("SSH-xxxxxxxxxxxx")) }, ends: true},
		"another protocol": {serve: func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, ends: true},
		"no key exchange":  {serve: func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-hang\r\n"); hold(c) }},
		"noise for a key exchange": {serve: func(c net.Conn) {
			_, _ = io.WriteString(c, "SSH-2.0-noise\r\n\x7f\xff\xff\xff\x04"+strings.Repeat("\xa5", 4096))
			hold(c)
		}, ends: true},
		"login never answered": neverAnswers(t),
		"no channel":           {session: func(ssh.NewChannel) {}},
		"channel refused":      {session: func(open ssh.NewChannel) { _ = open.Reject(ssh.ResourceShortage, "\x1b[2J") }, ends: true},
		"request never answered": {session: func(open ssh.NewChannel) {
			_, requests, _ := open.Accept()
			for range requests {
			}
		}},
		"no window":      {session: func(open ssh.NewChannel) { accept(open) }},
		"never ends":     {session: func(open ssh.NewChannel) { _, requests := accept(open); drain(requests) }},
		"endless stdout": {session: flood(func(c ssh.Channel, b []byte) error { _, err := c.Write(b); return err })},
		"endless stderr": {session: flood(func(c ssh.Channel, b []byte) error { _, err := c.Stderr().Write(b); return err })},
		"no exit status": {session: func(open ssh.NewChannel) {
			channel, requests := accept(open)
			go drain(requests)
			channel.Close()
		}, ends: true},
		"exit status of nonsense": {session: func(open ssh.NewChannel) {
			channel, requests := accept(open)
			go drain(requests)
			_, _ = channel.SendRequest("exit-status", false, []byte{1})
			channel.Close()
		}, ends: true},
		"requests without end": {session: func(open ssh.NewChannel) {
			channel, requests := accept(open)
			go drain(requests)
			for {
				if _, err := channel.SendRequest("keepalive@openssh.com", false, make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}},
	}
}

// dripping sends text a byte a second.
func dripping(text string) func(net.Conn) {
	return func(c net.Conn) {
		for _, b := range []byte(text) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
	}
}

// endless repeats a text.
type endless string

func (e endless) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		n += copy(p[n:], e)
	}
	return len(p), nil
}

// neverAnswers has the host key, and leaves the login open.
func neverAnswers(t *testing.T) hostile {
	private, public := qemutest.NewKey(t)
	signer, err := ssh.ParsePrivateKey(private)
	require.NoError(t, err)
	return hostile{hostKey: public, serve: func(c net.Conn) {
		config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
			hold(c)
			return nil, errors.New("no")
		}}
		config.AddHostKey(signer)
		_, _, _, _ = ssh.NewServerConn(c, config)
	}}
}

// F-3: whatever answers, each way in ends within a second of its limit, leaves
// no goroutine, and takes no more memory than it may.
func TestHostileServersSoak(t *testing.T) {
	const most = 64 << 20
	all := personalities(t)
	tried, late, worst, heap := 0, 0, time.Duration(0), uint64(0)
	for name, h := range all {
		t.Run(name, func(t *testing.T) {
			ignore := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, ignore) }) // the last: after the server has ended
			limited := time.Duration(soak.N(300, 2000)) * time.Millisecond
			for way, in := range hostileWays(t, h) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				ctx, cancel := context.WithTimeout(t.Context(), limited)
				began := time.Now()
				err := in(ctx)
				over := time.Since(began) - limited
				t.Logf("%s: %s beyond the limit: %v", way, over.Round(time.Millisecond), err)
				cancel()
				runtime.ReadMemStats(&after)
				require.Error(t, err, way)
				if !h.ends {
					require.ErrorIs(t, err, context.DeadlineExceeded, way)
				}
				worst = max(worst, over)
				if over > time.Second {
					late++
				}
				if after.HeapInuse > before.HeapInuse {
					heap = max(heap, after.HeapInuse-before.HeapInuse)
				}
			}
			tried++
		})
	}
	soak.AtLeast(t, "F-3", "hostile SSH servers, each end without a goroutine left", 16, float64(tried))
	soak.Figure(t, "F-3", fmt.Sprintf("time beyond the limit at worst (%d of more than 1 s)", late), 1, worst.Seconds(), "s")
	soak.AtMost(t, "F-3", "MiB of heap taken at worst", most>>20, float64(heap>>20))
}

// hostileWays are the ways in that meet such a server.
func hostileWays(t *testing.T, h hostile) map[string]func(context.Context) error {
	login := Login{User: "root"}
	if h.session != nil {
		login = hostileGuest(t, true, h.session)
		run := func(do func(*Client, context.Context) error) func(context.Context) error {
			return func(ctx context.Context) error {
				client, err := Dial(t.Context(), login)
				if err != nil {
					return err
				}
				defer client.Close()
				client.grace = 100 * time.Millisecond
				return do(client, ctx)
			}
		}
		return map[string]func(context.Context) error{
			"run": run(func(c *Client, ctx context.Context) error {
				return c.Run(ctx, Command{Line: "x", Stdin: bytes.NewReader(make([]byte, 16<<20)), Stdout: io.Discard, Stderr: io.Discard})
			}),
			"download": run(func(c *Client, ctx context.Context) error { return c.Download(ctx, "/x", t.TempDir()+"/x") }),
		}
	}
	login.PrivateKey, _ = qemutest.NewKey(t)
	if login.HostKey = h.hostKey; login.HostKey == "" {
		_, login.HostKey = qemutest.NewKey(t)
	}
	login.Addr = listen(t, h.serve)
	return map[string]func(context.Context) error{
		"dial": func(ctx context.Context) error { _, err := Dial(ctx, login); return err },
		"wait": func(ctx context.Context) error { _, err := Wait(ctx, login, nil); return err },
	}
}
