package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

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

// Backing is the image that an overlay writes on top of.
type Backing struct {
	Path   string // absolute
	Format string // "qcow2" or "raw"
}

// Size is the size in bytes of the disk that a guest sees of the image, in whole sectors.
func (b Backing) Size() (int64, error) {
	switch b.Format {
	case "qcow2":
		return virtualSize(b.Path)
	case "raw":
		return rawSize(b.Path)
	default:
		return 0, &OverlayError{b.Path, fmt.Sprintf("the backing file's format %q is none of qcow2 and raw", b.Format),
			"qemu-img convert -O qcow2 makes a qcow2 of it"}
	}
}

// SizeError says: a disk was asked for that is smaller than what is on it.
type SizeError struct {
	Base        string
	Asked, Size int64 // bytes: what was asked for, and what the base has
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("overlay: a disk of %d bytes is smaller than that of %s, which has %d bytes", e.Asked, e.Base, e.Size)
}

// Hint says what to do next.
func (e *SizeError) Hint() string {
	const mib = 1 << 20
	return fmt.Sprintf("ask for %d MiB at least, or leave the size out: a disk can only grow", (e.Size+mib-1)/mib)
}

// CreateOverlay fills the reserved file at path with a qcow2 that writes on
// top of the base and has size bytes, whole sectors. 0 is as large as the
// base; a guest reads zeros behind the end of the base. A smaller one is a
// *SizeError.
func CreateOverlay(base Backing, size int64, path string) error {
	least, err := base.Size()
	if err != nil {
		return err
	}
	if size == 0 {
		size = least
	}
	if size > 0 && size < least {
		return &SizeError{base.Path, size, least}
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

// releaseWait bounds how long the kernel takes to give back the locks on the images of a QEMU that was killed: a worker of its own does
// that, after the lock on the pidfile is gone; it took tens of milliseconds on a busy machine.
const releaseWait = time.Second

// StillInUse is InUse of a disk whose own QEMU has ended, maybe a moment ago.
func StillInUse(path string) (bool, error) {
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for end := time.Now().Add(releaseWait); ; <-tick.C {
		if used, err := InUse(path); !used || time.Now().After(end) {
			return used, err
		}
	}
}

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
