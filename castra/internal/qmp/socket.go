package qmp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	goqmp "github.com/digitalocean/go-qemu/qmp"
)

// retryPause is the wait between attempts to connect while the socket's queue
// of waiting clients is full.
const retryPause = 20 * time.Millisecond

// connect dials the socket at path, and nothing but a socket, and tells which
// process serves it.
func connect(ctx context.Context, path string) (server net.Conn, peer int, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, 0, errors.Unwrap(err) // the caller names the path
	}
	if info.Mode().Type() != fs.ModeSocket {
		return nil, 0, fmt.Errorf("not a socket but a %s", kindOf(info.Mode()))
	}
	address, release, err := socketAddress(path)
	if err != nil {
		return nil, 0, err
	}
	defer release()
	conn, err := dialUnix(ctx, address)
	if err != nil {
		return nil, 0, err
	}
	peer, err = peerPID(conn)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("ask who serves the socket: %w", err), conn.Close())
	}
	return conn, peer, nil
}

// dialUnix tries again while as many clients wait as QEMU lets wait.
func dialUnix(ctx context.Context, address string) (*net.UnixConn, error) {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", address)
		switch {
		case err == nil:
			return conn.(*net.UnixConn), nil
		case errors.Is(err, os.ErrDeadlineExceeded): // the dialer keeps ctx's deadline by a clock of its own
			<-ctx.Done()
			return nil, silence(ctx)
		case ctx.Err() != nil:
			return nil, silence(ctx)
		case !errors.Is(err, syscall.EAGAIN):
			return nil, errors.Unwrap(err)
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return nil, silence(ctx)
		}
	}
}

// readGreeting reads up to QEMU's first line that is not an event. A server
// that has another client accepts and says nothing.
func readGreeting(ctx context.Context, server net.Conn, lines *bufio.Reader) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	for {
		line, m, err := readMessage(lines)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, silence(ctx)
		case err != nil:
			return nil, fmt.Errorf("before the greeting: %w", err)
		case m.QMP != nil:
			return bytes.Clone(line), nil // the relay reads on while it is delivered
		case m.Event == "":
			return nil, fmt.Errorf("peer does not speak QMP: it greeted with %.60q", line)
		}
	}
}

// silence is the error for a server that said nothing until ctx ended.
func silence(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: no greeting in time", ErrBusy)
	}
	return ctx.Err()
}

func kindOf(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "regular file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeNamedPipe:
		return "named pipe"
	}
	return "device or other file (" + mode.Type().String() + ")"
}

// privateMonitor returns a SocketMonitor and the other end of its connection.
func privateMonitor(ctx context.Context) (net.Conn, *goqmp.SocketMonitor, error) {
	listener, release, err := privateListener()
	if err != nil {
		return nil, nil, err
	}
	defer release()
	deadline, _ := ctx.Deadline()
	if err := listener.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	monitor, err := goqmp.NewSocketMonitor("unix", listener.Addr().String(), time.Until(deadline))
	if err != nil {
		return nil, nil, err
	}
	inner, err := acceptOwn(listener)
	if err != nil {
		_ = monitor.Disconnect()
		return nil, nil, err
	}
	return inner, monitor, nil
}

// acceptOwn returns the first connection this process made. Others can only
// come from strangers who read the socket's name from the kernel's list.
func acceptOwn(listener *net.UnixListener) (net.Conn, error) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return nil, err
		}
		pid, err := peerPID(conn)
		if err == nil && (pid == os.Getpid() || pid == 0) {
			return conn, nil
		}
		_ = conn.Close()
	}
}
