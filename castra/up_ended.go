package castra

import (
	"context"
	"errors"
	"fmt"
	"time"

	"castra.example/castra/castra/internal/workspace"
)

// What ends an Up before it is through, besides a fault: its deadline, and a Down.

// takenDown puts in the place of what ctx's end made of an Up why it ended,
// where that is a Down.
func takenDown(ctx context.Context, err error) error {
	var by *workspace.TakenDownError
	if err == nil || !errors.As(context.Cause(ctx), &by) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.As(err, new(*workspace.TakenDownError)) {
		return by
	}
	return errors.Join(by, err)
}

// beforeDeadline ends a little before ctx does, if that has a deadline: mage
// leaves at once when its own, of -t, is over, and what was started has to be
// taken down before.
func beforeDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	margin := min(rollbackLimit+reclaimTime, time.Until(deadline)/2)
	return context.WithDeadlineCause(ctx, deadline.Add(-margin), &deadlineError{margin})
}

// deadlineError says: time is over, but for what taking down needs.
type deadlineError struct{ margin time.Duration }

func (e *deadlineError) Error() string {
	return fmt.Sprintf("the time limit is %s away, which is kept for taking down what was started", e.margin.Round(100*time.Millisecond))
}
func (e *deadlineError) Unwrap() error { return context.DeadlineExceeded }

// Hint says what to do next.
func (e *deadlineError) Hint() string { return "give mage a longer -t" }
