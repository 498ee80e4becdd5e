package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

const (
	// LockWait is how long a command waits for another to finish.
	LockWait = 10 * time.Minute
	lockPoll = 50 * time.Millisecond
	// signTries is how often a holder's name is looked for before it is told
	// of without one.
	signTries = 20
)

// Holder is the command that holds a workspace's lock.
type Holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "another command"
	}
	return fmt.Sprintf("%q (pid %d, since %s)", h.Command, h.PID, h.Since.Local().Format("15:04:05"))
}

// BusyError says: another command held the workspace until the wait was over.
type BusyError struct {
	Root   string
	Holder Holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("workspace %s: held by %s", e.Root, e.Holder)
}

// Hint says what to do next.
func (e *BusyError) Hint() string { return "try again when it has finished, or end it" }

// Lock makes this process the only writer of the workspace; readers take no
// lock. While another holds it, waiting is called once with its name, and the
// wait ends with a *BusyError after LockWait. The lock goes with the process,
// however it ends. A workspace of another user is refused, also to root: what
// it wrote there would lock out the owner.
func (w *Workspace) Lock(ctx context.Context, command string, waiting func(Holder)) (unlock func(), err error) {
	return w.lock(ctx, command, LockWait, waiting)
}

func (w *Workspace) lock(ctx context.Context, command string, wait time.Duration, waiting func(Holder)) (func(), error) {
	if err := checkOwner(w.Root); err != nil {
		return nil, err
	}
	l := flock.New(w.Layout.Lock(), lockFlags, flock.SetPermissions(0o600))
	got, err := l.TryLock()
	if err == nil && !got {
		limited, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		err = w.awaitLock(limited, l, waiting)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil, &BusyError{w.Root, w.holder()}
		}
	}
	if errors.Is(err, unix.ELOOP) {
		err = &PreflightError{w.Root, fmt.Errorf("%s is a symlink", w.Layout.Lock()), "move it away; Castra makes its own"}
	}
	if err == nil {
		err = w.checkLock(l)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("lock workspace %s: %w", w.Root, err)
	}
	w.signLock(l, command)
	return func() {
		w.writeLock(l, nil) // the name of a holder that is gone would mislead
		_ = l.Unlock()
	}, nil
}

// lockFlags make a lock file, and lead to no other file: what was left in its
// place may be a symlink, or a FIFO that would wait.
var lockFlags = flock.SetFlag(os.O_CREATE | os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK)

// checkLock refuses as lock what is no file of ours. One that has another name
// too, as in a copy of hard links, is locked and not written into.
func (w *Workspace) checkLock(l *flock.Flock) error {
	st, err := l.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || !ownedByUs(st) {
		return &PreflightError{w.Root, fmt.Errorf("%s is no regular file of yours", w.Layout.Lock()), "move it away; Castra makes its own"}
	}
	return nil
}

// awaitLock tries until the lock is ours. It tells once who holds it; a holder
// that has only just taken it gets a moment to leave its name.
func (w *Workspace) awaitLock(ctx context.Context, l *flock.Flock, waiting func(Holder)) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	told := false
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if got, err := l.TryLock(); got || err != nil {
			return err
		}
		if h := w.holder(); !told && (h.PID != 0 || n >= signTries) {
			waiting(h)
			told = true
		}
	}
}

// signLock leaves word of who holds the lock. The word is for people only: the
// lock decides, so a failure to write it is none.
func (w *Workspace) signLock(l *flock.Flock, command string) {
	b, err := json.Marshal(Holder{os.Getpid(), command, time.Now()})
	if err == nil {
		w.writeLock(l, append(b, '\n'))
	}
}

// writeLock replaces what the locked file says.
func (w *Workspace) writeLock(l *flock.Flock, text []byte) {
	f, err := os.OpenFile(w.Layout.Lock(), os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	st, err := f.Stat()
	locked, lockedErr := l.Stat()
	if err != nil || lockedErr != nil || !os.SameFile(st, locked) || !plain(st) {
		return
	}
	if f.Truncate(0) == nil {
		_, _ = f.Write(text)
	}
}

func (w *Workspace) holder() Holder {
	var h Holder
	_ = readJSON(w.Layout.Lock(), &h)
	return h
}
