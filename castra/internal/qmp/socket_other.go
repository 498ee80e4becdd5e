//go:build !linux

package qmp

import (
	"net"
	"os"
	"path/filepath"
)

// maxSocketPath is what fits into sockaddr_un on the BSDs, macOS included.
const maxSocketPath = 103

func socketAddress(path string) (string, func(), error) {
	if len(path) > maxSocketPath {
		return "", nil, &PathTooLongError{Path: path, Limit: maxSocketPath}
	}
	return path, func() {}, nil
}

// privateListener listens in a directory only this user can enter.
func privateListener() (*net.UnixListener, func(), error) {
	dir, err := os.MkdirTemp("", "castra-qmp-")
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "s")})
	if err != nil {
		_ = os.Remove(dir)
		return nil, nil, err
	}
	return listener, func() {
		_ = listener.Close()
		_ = os.Remove(dir)
	}, nil
}

func peerPID(*net.UnixConn) (int, error) { return 0, nil }
