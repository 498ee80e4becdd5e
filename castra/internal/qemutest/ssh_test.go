package qemutest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// login logs in at addr and pins hostKey.
func login(t *testing.T, addr, user, hostKey string, private []byte) (*ssh.Client, error) {
	t.Helper()
	signer, err := ssh.ParsePrivateKey(private)
	require.NoError(t, err)
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
	require.NoError(t, err)
	client, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(pinned),
	})
	if err == nil {
		t.Cleanup(func() { client.Close() })
	}
	return client, err
}

func run(t *testing.T, c *ssh.Client, line, stdin string) (stdout, stderr string, err error) {
	t.Helper()
	session, err := c.NewSession()
	require.NoError(t, err)
	defer session.Close()
	var out, errOut bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader(stdin), &out, &errOut
	err = session.Run(line)
	return out.String(), errOut.String(), err
}

// guestServer is a server with one login for root.
func guestServer(t *testing.T, personality Personality) (s *SSHServer, private []byte) {
	t.Helper()
	private, public := NewKey(t)
	host, _ := NewKey(t)
	return NewSSHServer(t, SSHOptions{
		HostKeyPEM: host, AuthorizedKeys: []string{public}, User: "root", Dir: t.TempDir(), Name: "web-0", Personality: personality,
	}), private
}

func TestSSHCommands(t *testing.T) {
	checkLeaks(t)
	server, private := guestServer(t, "")
	c, err := login(t, server.Addr(), "root", server.HostKey(), private)
	require.NoError(t, err)
	for name, x := range map[string]struct{ line, stdin, stdout, stderr string }{
		"true":        {"true", "", "", ""},
		"streams":     {"cat; echo to-stderr >&2", "a\x00b\n", "a\x00b\n", "to-stderr\n"},
		"unread":      {"echo done", strings.Repeat("x", 1<<20), "done\n", ""},
		"environment": {`echo "$USER $CASTRA_FAKE_GUEST"; [ "$HOME" = "$(pwd)" ] && echo at-home`, "", "root web-0\nat-home\n", ""},
		"large":       {"head -c 3000000 /dev/zero | tr '\\0' x", "", strings.Repeat("x", 3_000_000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := run(t, c, x.line, x.stdin)
			if name != "unread" { // x/crypto reports input that nobody read as io.EOF
				require.NoError(t, err)
			}
			require.Equal(t, x.stdout, stdout)
			require.Equal(t, x.stderr, stderr)
		})
	}
	require.NoError(t, os.WriteFile(filepath.Join(server.options.Dir, "f"), []byte("kept"), 0o600))
	stdout, _, err := run(t, c, "cat f", "")
	require.NoError(t, err)
	require.Equal(t, "kept", stdout)
}

func TestSSHExit(t *testing.T) {
	checkLeaks(t)
	server, private := guestServer(t, "")
	c, err := login(t, server.Addr(), "root", server.HostKey(), private)
	require.NoError(t, err)
	for line, want := range map[string]struct {
		status int
		signal string
	}{
		"exit 7":          {7, ""},
		"no-such-command": {127, ""},
		"kill -TERM $$":   {0, "TERM"},
		"kill -KILL $$":   {0, "KILL"},
	} {
		_, _, err := run(t, c, line, "")
		var exit *ssh.ExitError
		require.ErrorAs(t, err, &exit, line)
		require.Equal(t, want.signal, exit.Signal(), line)
		if want.signal == "" {
			require.Equal(t, want.status, exit.ExitStatus(), line)
		}
	}
}

func TestSSHSignalsAndShell(t *testing.T) {
	checkLeaks(t)
	server, private := guestServer(t, "")
	c, err := login(t, server.Addr(), "root", server.HostKey(), private)
	require.NoError(t, err)
	session, err := c.NewSession()
	require.NoError(t, err)
	out, err := session.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, session.Start("echo up; sleep 100"))
	_, err = io.ReadFull(out, make([]byte, 3))
	require.NoError(t, err)
	// Not SIGINT, which dash loses when it comes just before it becomes sleep.
	require.NoError(t, session.Signal(ssh.SIGTERM))
	var exit *ssh.ExitError
	require.ErrorAs(t, session.Wait(), &exit)
	require.Equal(t, "TERM", exit.Signal())

	session, err = c.NewSession()
	require.NoError(t, err)
	session.Stdin = strings.NewReader("echo from-shell\nexit 3\n")
	var stdout bytes.Buffer
	session.Stdout = &stdout
	require.NoError(t, session.Shell())
	require.ErrorAs(t, session.Wait(), &exit)
	require.Equal(t, 3, exit.ExitStatus())
	require.Equal(t, "from-shell\n", stdout.String())
}

func TestSSHTerminal(t *testing.T) {
	checkLeaks(t)
	server, private := guestServer(t, "")
	c, err := login(t, server.Addr(), "root", server.HostKey(), private)
	require.NoError(t, err)
	session, err := c.NewSession()
	require.NoError(t, err)
	require.NoError(t, session.RequestPty("xterm", 24, 80, nil))
	stdout, err := session.StdoutPipe()
	require.NoError(t, err)
	out := bufio.NewReader(stdout)
	require.NoError(t, session.Start(`trap 'stty size; exit 4' WINCH; echo "$TERM"; stty size; while :; do sleep 0.02; done`))
	line := func() string {
		text, err := out.ReadString('\n')
		require.NoError(t, err)
		return text
	}
	require.Equal(t, "xterm\r\n", line())
	require.Equal(t, "24 80\r\n", line())
	require.NoError(t, session.WindowChange(50, 132))
	require.Equal(t, "50 132\r\n", line())
	var exit *ssh.ExitError
	require.ErrorAs(t, session.Wait(), &exit)
	require.Equal(t, 4, exit.ExitStatus())

	// A client that is gone takes its terminal's users along.
	session, err = c.NewSession()
	require.NoError(t, err)
	require.NoError(t, session.RequestPty("xterm", 24, 80, nil))
	require.NoError(t, session.Shell())
	require.NoError(t, c.Close())
}

// TestSSHCommandEndsWithItsClient looks for the command's own mark.
func TestSSHCommandEndsWithItsClient(t *testing.T) {
	checkLeaks(t)
	server, private := guestServer(t, "")
	c, err := login(t, server.Addr(), "root", server.HostKey(), private)
	require.NoError(t, err)
	session, err := c.NewSession()
	require.NoError(t, err)
	mark := filepath.Join(server.options.Dir, "fifo")
	require.NoError(t, session.Start("mkfifo fifo; (exec 3>fifo; sleep 100) & wait"))
	var reader *os.File
	require.Eventually(t, func() bool { reader, err = os.Open(mark); return err == nil }, patience, 5*time.Millisecond)
	defer reader.Close()
	require.NoError(t, c.Close())
	_, err = reader.Read(make([]byte, 1)) // the end of the last writer ends this
	require.ErrorIs(t, err, io.EOF)
}

func TestSSHLogin(t *testing.T) {
	checkLeaks(t)
	server, private := guestServer(t, "")
	other, _ := NewKey(t)
	_, err := login(t, server.Addr(), "root", server.HostKey(), other)
	requireAuthFailure(t, err)
	_, err = login(t, server.Addr(), "alice", server.HostKey(), private)
	requireAuthFailure(t, err)
}

func requireAuthFailure(t *testing.T, err error) {
	t.Helper()
	require.ErrorContains(t, err, "unable to authenticate")
}

func TestSSHPersonalities(t *testing.T) {
	t.Run("refuse-login", func(t *testing.T) {
		checkLeaks(t)
		server, private := guestServer(t, "refuse-login")
		_, err := login(t, server.Addr(), "root", server.HostKey(), private)
		requireAuthFailure(t, err)
	})
	t.Run("wrong-host-key", func(t *testing.T) {
		checkLeaks(t)
		private, public := NewKey(t)
		hostPrivate, hostPublic := NewKey(t)
		server := NewSSHServer(t, SSHOptions{HostKeyPEM: hostPrivate, AuthorizedKeys: []string{public}, Personality: "wrong-host-key"})
		_, err := login(t, server.Addr(), "root", hostPublic, private)
		require.ErrorContains(t, err, "host key mismatch")
	})
	t.Run("no-ssh", func(t *testing.T) {
		checkLeaks(t)
		server, _ := guestServer(t, "no-ssh")
		requireSilence(t, server.Addr())
	})
	t.Run("slow-boot", func(t *testing.T) {
		checkLeaks(t)
		server, _ := guestServer(t, "slow-boot=1h")
		requireSilence(t, server.Addr())
		server, private := guestServer(t, "slow-boot=50ms")
		_, err := login(t, server.Addr(), "root", server.HostKey(), private)
		require.NoError(t, err, "who waits is served")
	})
}

// requireSilence connects, says hello and hears nothing.
func requireSilence(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("SSH-2.0-test\r\n"))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	n, err := conn.Read(make([]byte, 1))
	require.Zero(t, n)
	require.True(t, errors.Is(err, os.ErrDeadlineExceeded), "%v", err)
}
