package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// keepWait bounds the wait for another: an up holds the lock until it has put
// on record what it runs from, a prune while it removes files.
const keepWait = time.Minute

// Keep keeps all images under home from being removed, until release: between
// finding an image and putting on record that a VM runs from it, nobody else
// could know. Several may hold it.
func Keep(ctx context.Context, home string) (release func(), err error) {
	return hold(ctx, home, (*flock.Flock).TryRLockContext)
}

// Alone keeps everyone from beginning to use an image under home, until
// release. While somebody is about to it waits, and is a *BusyError in the end.
func Alone(ctx context.Context, home string) (release func(), err error) {
	return hold(ctx, home, (*flock.Flock).TryLockContext)
}

func hold(ctx context.Context, home string, take func(*flock.Flock, context.Context, time.Duration) (bool, error)) (func(), error) {
	limited, cancel := context.WithTimeout(ctx, keepWait)
	defer cancel()
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("lock images: %w", err)
	}
	l := flock.New(filepath.Join(home, "images.lock"), flock.SetPermissions(0o600))
	_, err := take(l, limited, lockPoll)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, &BusyError{"an image under " + home, l.Path()}
	}
	if err != nil {
		return nil, fmt.Errorf("lock images of %s: %w", home, err)
	}
	return func() { l.Unlock() }, nil
}
