package qmp

import (
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into sockaddr_un beside the closing NUL.
const maxSocketPath = 107

// socketAddress returns an address of path that fits, and what to release
// after dialing.
func socketAddress(path string) (string, func(), error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", nil, err
	}
	short := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	if len(short) > maxSocketPath {
		dir.Close()
		return "", nil, &PathTooLongError{Path: filepath.Base(path), Limit: maxSocketPath - (len(short) - len(filepath.Base(path)))}
	}
	return short, func() { dir.Close() }, nil
}

// privateListener listens in the abstract namespace: nothing on disk to
// protect or to clean up.
func privateListener() (*net.UnixListener, func(), error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "@castra-qmp-" + rand.Text()})
	if err != nil {
		return nil, nil, err
	}
	return listener, func() { _ = listener.Close() }, nil
}

func peerPID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Pid), nil
}
