package qemutest

import (
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// QEMU marks the bytes of an image it uses with OFD read locks: 100+n for a
// permission it has, 200+n for one it grants nobody else.
const (
	hasPermission   = 100
	deniesOthers    = 200
	permissionRead  = 0
	permissionWrite = 1
	permissionSize  = 3
)

var errImageInUse = errors.New(`Failed to get "write" lock`) //nolint:staticcheck // QEMU's words

// shareImage marks f as read, so that it must not be written to.
func shareImage(f *os.File) error {
	for _, at := range []int64{hasPermission + permissionRead, deniesOthers + permissionWrite} {
		lock := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			return err
		}
	}
	return nil
}

// lockImage marks f as written to, and fails when another QEMU has done so.
func lockImage(f *os.File) error {
	var lock unix.Flock_t
	for _, at := range []int64{
		hasPermission + permissionRead, hasPermission + permissionWrite, hasPermission + permissionSize,
		deniesOthers + permissionWrite, deniesOthers + permissionSize,
	} {
		lock = unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			return err
		}
	}
	for _, at := range []int64{hasPermission + permissionWrite, deniesOthers + permissionWrite} {
		lock = unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
			return err
		}
		if lock.Type != unix.F_UNLCK {
			return errImageInUse
		}
	}
	return nil
}

// commandAttr gives a guest's command a process group of its own and ends it
// with the fake, even when that is killed.
func commandAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// memoryFile is a file without a name, which /proc shows as "/memfd:NAME (deleted)".
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// confine gives this process a seccomp filter, as -sandbox does; this one lets
// all calls pass, of which the commands of the guest need more than QEMU.
func confine() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	pass := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	program := unix.SockFprog{Len: 1, Filter: &pass}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}
