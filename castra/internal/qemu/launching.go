package qemu

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// launchByte of an overlay is locked by the QEMU that was launched on it, from its fork to its end. QEMU's own
// locks on an image are at the bytes 100 to 299 (block/file-posix.c).
const launchByte = 1000

// lockLaunch opens the overlay with the lock that says: a QEMU is being launched on it. The process that inherits
// the handle keeps the lock. A file system without such locks gives the handle alone: QEMU decides what that means.
func lockLaunch(overlay string) (*os.File, error) {
	f, err := os.OpenFile(overlay, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: launchByte, Len: 1}
	_ = unix.FcntlFlock(f.Fd(), setLock, &lock)
	return f, nil
}

// beingLaunched tells that a process lives which was launched on the overlay. One that cannot be looked at has none.
func beingLaunched(overlay string) bool {
	f, err := os.OpenFile(overlay, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: launchByte, Len: 1}
	return unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

// LaunchingError says: a QEMU was launched, and has neither taken its pidfile nor ended.
type LaunchingError struct {
	Overlay string
	Wait    time.Duration
}

func (e *LaunchingError) Error() string {
	return fmt.Sprintf("the QEMU that was launched on %s has not taken its pidfile in %s, nor ended", e.Overlay, e.Wait)
}

// Hint says what to do next.
func (e *LaunchingError) Hint() string {
	return "it is stopped or hangs; find it with fuser or lsof on that file, and end it"
}

// InspectSettled is Inspect, once it is sure: a command that was killed may have launched a QEMU a moment before,
// which has yet to take its pidfile. It is waited for until it has, or has ended.
func InspectSettled(ctx context.Context, t Target) (State, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, StartLimit, &LaunchingError{t.Overlay, StartLimit})
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		s := Inspect(ctx, t)
		if s.Alive() || !s.Launching {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
