package host

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// listenOn listens with the socket options set, and with the address family's
// own where IPv6 takes IPv4 too.
func listenOn(t *testing.T, network, addr string, options ...int) *net.TCPListener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var fault error
		err := c.Control(func(fd uintptr) {
			for _, o := range options {
				if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1); err != nil {
					fault = err
				}
			}
		})
		if err != nil {
			return err
		}
		return fault
	}}
	l, err := lc.Listen(t.Context(), network, addr)
	if err != nil {
		t.Skipf("listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// handedTo gives a socket to another process and closes it here.
func handedTo(t *testing.T, l *net.TCPListener) (pid int) {
	t.Helper()
	f, err := l.File()
	require.NoError(t, err)
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{f}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.NoError(t, f.Close())
	require.NoError(t, l.Close())
	return cmd.Process.Pid
}

func at(l net.Listener, ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(l.Addr().(*net.TCPAddr).Port))
}

// F-4: who takes a connection, by the rules of the kernel.
func TestServes(t *testing.T) {
	us := os.Getpid()
	for name, c := range map[string]struct {
		network, bound string
		asked          string
		served         bool
	}{
		"the address itself":      {"tcp4", "127.0.0.1:0", "127.0.0.1", true},
		"all addresses":           {"tcp4", "0.0.0.0:0", "127.0.0.1", true},
		"all of IPv6 and IPv4":    {"tcp", "[::]:0", "127.0.0.1", true},
		"IPv6 itself":             {"tcp6", "[::1]:0", "::1", true},
		"an IPv4 address, by one": {"tcp4", "127.0.0.1:0", "::ffff:127.0.0.1", true},
	} {
		t.Run(name, func(t *testing.T) {
			l := listenOn(t, c.network, c.bound)
			served, err := Serves(us, at(l, c.asked))
			require.NoError(t, err)
			require.Equal(t, c.served, served)
			other := handedTo(t, l)
			served, err = Serves(us, at(l, c.asked))
			require.NoError(t, err)
			require.False(t, served, "another process has it")
			served, err = Serves(other, at(l, c.asked))
			require.NoError(t, err)
			require.True(t, served)
		})
	}
	l := listenOn(t, "tcp4", "127.0.0.2:0")
	_, err := Serves(us, at(l, "127.0.0.1"))
	require.ErrorIs(t, err, ErrNobody, "bound elsewhere")
	addr := at(l, "127.0.0.2")
	require.NoError(t, l.Close())
	_, err = Serves(us, addr)
	require.ErrorIs(t, err, ErrNobody)
}

// One that shares the port, as the same user may, gets some of the connections.
func TestServesNotASharedPort(t *testing.T) {
	ours := listenOn(t, "tcp4", "127.0.0.1:0", unix.SO_REUSEPORT)
	addr := at(ours, "127.0.0.1")
	handedTo(t, listenOn(t, "tcp4", addr.String(), unix.SO_REUSEPORT))
	served, err := Serves(os.Getpid(), addr)
	require.NoError(t, err)
	require.False(t, served)
}

// A process that has ended serves nobody, and whoever has its port then is not
// taken for it.
func TestServesAfterTheEnd(t *testing.T) {
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	l := listenOn(t, "tcp4", "127.0.0.1:0")
	served, err := Serves(cmd.Process.Pid, at(l, "127.0.0.1"))
	require.NoError(t, err)
	require.False(t, served)
}

// What may not be looked at is not told: here as another user.
func TestServesCannotTell(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	l := listenOn(t, "tcp4", "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("/tmp", "castra-serves-") // unlike t.TempDir, where others may go
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	program := filepath.Join(dir, "test")
	self, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, self, 0o755))
	cmd := exec.CommandContext(ctx, program, "-test.run=^TestServesForNobody$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "CASTRA_TEST_SERVES="+fmt.Sprintf("%d %s", os.Getpid(), at(l, "127.0.0.1")))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "cannot tell: ")
}

func TestServesForNobody(t *testing.T) {
	var pid int
	var addr string
	if _, err := fmt.Sscan(os.Getenv("CASTRA_TEST_SERVES"), &pid, &addr); err != nil {
		t.Skip("runs in TestServesCannotTell")
	}
	_, err := Serves(pid, netip.MustParseAddrPort(addr))
	require.ErrorIs(t, err, os.ErrPermission)
	require.NotErrorIs(t, err, ErrNobody)
	t.Logf("cannot tell: %v", err)
}

func TestConfined(t *testing.T) {
	c, err := Confined(os.Getpid())
	require.NoError(t, err)
	require.Equal(t, os.Geteuid(), c.UID)
	_, err = Confined(1 << 30)
	require.Error(t, err)
}

// F-4 is asked at every login: it costs little beside one.
func BenchmarkServes(b *testing.B) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	for b.Loop() {
		_, _ = Serves(os.Getpid(), at(l, "127.0.0.1"))
	}
}
