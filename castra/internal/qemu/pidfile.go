package qemu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// Holder tells which process holds QEMU's lock on a pidfile; 0 when none does,
// also when there is no such file. What the file says is not looked at: only a
// living QEMU can hold the lock, and it goes with the process. A lock that
// QEMU does not take is none: one for reading, or one that belongs to an open
// file, as Castra has while it removes the pidfile.
func Holder(pidfile string) (int, error) {
	f, err := openPidfile(pidfile, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return holder(f)
}

func holder(f *os.File) (int, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("pidfile %s: %w", f.Name(), err)
	}
	switch {
	case lock.Type != unix.F_WRLCK || lock.Pid < 0:
		return 0, nil
	case lock.Pid == 0:
		return 0, &HeldError{Pidfile: f.Name()}
	}
	return int(lock.Pid), nil
}

// HeldError says: a pidfile is locked, and not by a QEMU of its workspace that
// Castra could end.
type HeldError struct {
	Pidfile string
	PID     int // 0 where it cannot be seen from here
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("pidfile %s: locked by a process that cannot be seen from here", e.Pidfile)
	}
	return fmt.Sprintf("pidfile %s: locked by process %d, which is no QEMU of this workspace", e.Pidfile, e.PID)
}

// Hint says what to do next.
func (e *HeldError) Hint() string {
	if e.PID == 0 {
		return "it runs in another container or namespace: run mage down there"
	}
	return fmt.Sprintf("no signal is sent to it; see what it is (ps -p %d), and end it or wait until it has ended", e.PID)
}

// HolderVM is Holder where the process may be ended. QEMU runs in the
// directory of its pidfile, so a process that holds the lock and runs in
// another is a stranger, or the QEMU of the workspace that this one is a copy
// of by hard links: a *HeldError.
func HolderVM(pidfile string) (int, error) {
	pid, err := Holder(pidfile)
	if err != nil || pid == 0 {
		return 0, err
	}
	if in, known := host.RunsIn(pid, filepath.Dir(pidfile)); known && !in {
		return 0, &HeldError{pidfile, pid}
	}
	return pid, nil
}

// Held is the error of a pidfile that could not be removed, since it is locked.
func Held(pidfile string) error {
	pid, err := Holder(pidfile)
	if err != nil {
		return err
	}
	return &HeldError{pidfile, pid}
}

// RemovePidfile removes a pidfile directly in root, which has been proved to be
// Castra's, that nobody holds, having locked it first: a QEMU that starts
// meanwhile then sees a held file, or its own new one, and never loses it. It
// tells whether the file is gone.
func RemovePidfile(root *os.Root, name string) (bool, error) {
	pidfile := filepath.Join(root.Name(), name)
	st, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return false, fmt.Errorf("pidfile %s: %w", pidfile, err)
	}
	f, err := root.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, fmt.Errorf("pidfile %s: %w", pidfile, err)
	}
	defer f.Close()
	if mine, err := f.Stat(); err != nil || !os.SameFile(st, mine) {
		return false, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), setLock, &lock); err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return false, nil
		}
		return false, fmt.Errorf("pidfile %s: %w", pidfile, err)
	}
	if there, err := root.Lstat(name); err != nil || !os.SameFile(st, there) {
		return false, nil // it is another's by now
	}
	if err := root.Remove(name); err != nil {
		return false, fmt.Errorf("pidfile %s: %w", pidfile, err)
	}
	return true, nil
}

// openPidfile opens a regular file and nothing else: a FIFO would hang, a
// symlink would lead elsewhere.
func openPidfile(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("pidfile %s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
