package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

const (
	overlayTimeout = 60 * time.Second
	stderrLimit    = 4 << 10
)

// ToolError says: a program that Castra runs ended in failure.
type ToolError struct {
	Tool   string
	Args   []string
	Err    error
	Stderr string
}

func (e *ToolError) Error() string {
	s := fmt.Sprintf("%s %s: %v", e.Tool, strings.Join(e.Args, " "), e.Err)
	if e.Stderr != "" {
		s += ": " + e.Stderr
	}
	return s
}
func (e *ToolError) Unwrap() error { return e.Err }

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
// top of the qcow2 at base; both paths are absolute.
func CreateOverlay(ctx context.Context, qemuImg, base, path string) error {
	ctx, cancel := context.WithTimeout(ctx, overlayTimeout)
	defer cancel()
	// qemu-img takes -b and the overlay's path as they are: no option syntax, no doubled commas.
	args := []string{"create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path}
	cmd := exec.CommandContext(ctx, qemuImg, args...)
	var stderr bounded
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil {
		err = checkOverlay(path)
	}
	if err != nil {
		return &ToolError{qemuImg, args, errors.Join(err, ctx.Err()), stderr.String()}
	}
	return nil
}

// checkOverlay believes the file and not the exit status: qemu-img has been
// seen to report success for what no guest can boot from.
func checkOverlay(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := f.Read(magic); err != nil || string(magic) != "QFI\xfb" {
		return errors.New("it reported success and wrote no qcow2")
	}
	return nil
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

// bounded keeps the first bytes written to it and drops the rest. It has no
// other method of a buffer: os/exec would rather use ReadFrom, which has no
// bound.
type bounded struct{ kept []byte }

func (b *bounded) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(stderrLimit-len(b.kept), len(p))]...)
	return len(p), nil
}

func (b *bounded) String() string { return strings.TrimSpace(string(b.kept)) }
