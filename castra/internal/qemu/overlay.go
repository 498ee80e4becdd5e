package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// ReserveOverlay makes the empty file that will be an overlay, and tells its
// identity, so that it can be recorded as ours before anything is in it. A
// file that stands there already is an error: it is not ours.
func ReserveOverlay(path string) (host.FileID, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return host.FileID{}, err
	}
	defer f.Close()
	return host.IDOf(f)
}

// CreateOverlay fills the reserved file at path with a qcow2 that writes on
// top of the qcow2 at base, an absolute path, and is as large.
func CreateOverlay(base, path string) error {
	size, err := virtualSize(base)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(writeOverlay(f, base, size), f.Close())
}

// CopyOverlay fills the reserved file at path with a copy of another overlay, so that it depends on nothing but that one's backing file.
func CopyOverlay(ctx context.Context, from, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return copyInto(ctx, from, f)
}

// DiskSize is the size in bytes of the disk that a guest sees of the qcow2 at path.
func DiskSize(path string) (int64, error) { return virtualSize(path) }

// InUse tells that a living QEMU, or another program that locks images as it
// does, has the disk at path open.
func InUse(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return false, fmt.Errorf("lock of %s: %w", path, err)
	}
	return lock.Type != unix.F_UNLCK, nil
}
