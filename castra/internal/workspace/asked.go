package workspace

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// askedPoll is how long an up may go on after a down has asked for the
// workspace.
const askedPoll = 100 * time.Millisecond

// TakenDownError says: while a command brought VMs up, another began that takes
// them down.
type TakenDownError struct {
	Root string
	By   Holder
}

func (e *TakenDownError) Error() string {
	return fmt.Sprintf("workspace %s: taken down by %s", e.Root, e.By)
}

// Hint says what to do next.
func (e *TakenDownError) Hint() string { return "mage up, when the VMs are wanted again" }

// AskDown lets whoever brings VMs up here know that command is to take them
// down, so that it gives way instead of being waited for. It is called before
// the lock is taken. What fails here costs only waiting, so it is no error.
func (w *Workspace) AskDown(command string) {
	b, err := json.Marshal(Holder{os.Getpid(), command, time.Now()}) // no two are the same
	if err != nil || checkOwner(w.Root) != nil || w.MakeDir(w.Metadata()) != nil {
		return
	}
	// Not renamed into place: as the lock is not held, what is staged may be removed.
	f, err := os.OpenFile(w.Asked(), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && plain(st) && f.Truncate(0) == nil {
		_, _ = f.Write(append(b, '\n'))
	}
}

// UntilAskedDown gives a ctx that ends with a *TakenDownError once another
// command asks, by AskDown, for the workspace at root, which need not exist
// yet. One that asked before does not count. Stop must be called.
func UntilAskedDown(ctx context.Context, root string) (_ context.Context, stop func()) {
	ctx, end := context.WithCancelCause(ctx)
	l := Layout{root}
	before, _ := readRecord(l.Asked())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(askedPoll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now, err := readRecord(l.Asked())
			var by Holder
			// A file that is being written is read once more; one that is gone asks for nothing.
			if err == nil && string(now) != string(before) && json.Unmarshal(now, &by) == nil {
				end(&TakenDownError{root, by})
				return
			}
		}
	}()
	return ctx, func() {
		end(nil)
		<-done
	}
}
