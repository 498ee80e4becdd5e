package qemutest

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lockWhole takes the kind of lock QEMU has on its pidfile: POSIX, write,
// whole file. It goes when the process ends or closes any handle on the file.
func lockWhole(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
}

// lockHolder is the pid that holds a lock on f, or 0.
func lockHolder(f *os.File) (int, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, err
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}
