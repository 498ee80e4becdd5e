package host

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBootIDIsSteady(t *testing.T) {
	require.NotEmpty(t, BootID())
	require.Equal(t, BootID(), BootID())
}

func TestAvailableMemoryAndDisk(t *testing.T) {
	if runtime.GOOS == "linux" {
		n, err := AvailableMemory()
		require.NoError(t, err)
		require.Greater(t, n, uint64(1<<20))
		total, err := TotalMemory()
		require.NoError(t, err)
		require.Greater(t, total, n)
	}
	free, err := FreeDisk(t.TempDir())
	require.NoError(t, err)
	require.Positive(t, free)
	_, err = FreeDisk("/no/such/path")
	require.ErrorContains(t, err, "/no/such/path")
}

func TestPortOwner(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("known on Linux alone")
	}
	for addr, ips := range map[string]map[string]bool{
		"127.0.0.1:0": {"127.0.0.1": true, "": true, "127.0.0.2": false, "::1": false},
		"[::1]:0":     {"127.0.0.1": false, "0.0.0.0": false, "::1": true},
		"[::]:0":      {"127.0.0.1": true, "::1": true},
	} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue // no IPv6 here
		}
		port := l.Addr().(*net.TCPAddr).Port
		for ip, has := range ips {
			if has {
				require.Contains(t, PortOwner("tcp", ip, port).String(), fmt.Sprintf("pid %d (", os.Getpid()), "%s on %q", addr, ip)
			} else {
				require.Zero(t, PortOwner("tcp", ip, port), "%s on %q", addr, ip)
			}
		}
		require.Empty(t, PortOwner("udp", "", port).String())
		l.Close()
		require.Zero(t, PortOwner("tcp", "", port))
	}
}

// B9: who looks whether a port is free is in nobody's way, whoever else looks.
func TestBindableDisturbsNobody(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("true on Linux alone")
	}
	take := map[string]func(port int) (io.Closer, error){
		"tcp": func(port int) (io.Closer, error) { return net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)) },
		"udp": func(port int) (io.Closer, error) { return net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", port)) },
	}
	for protocol, take := range take {
		t.Run(protocol, func(t *testing.T) {
			first, err := take(0)
			require.NoError(t, err)
			port := 0
			switch l := first.(type) {
			case net.Listener:
				port = l.Addr().(*net.TCPAddr).Port
			case net.PacketConn:
				port = l.LocalAddr().(*net.UDPAddr).Port
			}
			require.ErrorIs(t, Bindable(t.Context(), protocol, "127.0.0.1", port), syscall.EADDRINUSE)
			require.ErrorIs(t, Bindable(t.Context(), protocol, "0.0.0.0", port), syscall.EADDRINUSE)
			require.NoError(t, Bindable(t.Context(), protocol, "127.0.0.2", port))
			require.ErrorIs(t, Bindable(t.Context(), protocol, "192.0.2.1", port), syscall.EADDRNOTAVAIL)
			require.NoError(t, first.Close())
			stop := make(chan struct{})
			var lookers sync.WaitGroup
			for range 2 {
				lookers.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							_ = Bindable(t.Context(), protocol, "127.0.0.1", port)
						}
					}
				})
			}
			for range 500 {
				l, err := take(port)
				if err != nil {
					t.Error("somebody who only looked had the port: ", err)
					break
				}
				l.Close()
			}
			close(stop)
			lookers.Wait()
		})
	}
}

func TestWaitExit(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	p, err := OpenProcess(cmd.Process.Pid)
	require.NoError(t, err)
	defer p.Release()

	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.WaitExit(short), context.DeadlineExceeded)
	require.ErrorIs(t, p.pollExit(short), context.DeadlineExceeded)

	require.NoError(t, p.Signal(syscall.SIGTERM))
	// Nobody has waited for the child: a zombie counts as ended (failure bank 59).
	require.NoError(t, p.WaitExit(t.Context()))
	require.NoError(t, p.pollExit(t.Context()))
	require.Error(t, cmd.Wait())
	require.NoError(t, p.Signal(syscall.SIGTERM), "a process that has ended is no error")
	require.NoError(t, p.WaitExit(t.Context()))
}

func TestNoSignalsToGroupsOrInit(t *testing.T) {
	for _, pid := range []int{-1, 0, 1} {
		_, err := OpenProcess(pid)
		require.Error(t, err, pid)
	}
}
