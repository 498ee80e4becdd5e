package fetch

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// cutError says: a connection broke within the body.
type cutError struct{ err error }

func (e *cutError) Error() string { return "the connection broke off: " + e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

// transient tells whether the same try may go better soon. progressed says
// that this one brought bytes, received that any before it did: a server that
// was there is waited for, and one that never was is reported at once.
func transient(err error, progressed, received bool) bool {
	var cut *cutError
	var status *StatusError
	var stalled *StalledError
	var lookup *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &stalled):
		return progressed
	case errors.As(err, &cut):
		return true
	case errors.As(err, &status):
		return status.temporary()
	case errors.As(err, &lookup), errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return received
	}
	for _, passing := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, os.ErrDeadlineExceeded} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// pause is how long to wait before the next try, after so many failures in
// a row.
func (l Limits) pause(failures int, err error) time.Duration {
	wait := l.Backoff
	for range failures - 1 {
		wait = min(2*wait, l.MaxBackoff)
	}
	var status *StatusError
	if errors.As(err, &status) {
		wait = max(wait, min(status.RetryAfter, l.RetryAfter))
	}
	return wait
}

// sleep waits, or until the context ends.
func sleep(ctx context.Context, wait time.Duration) error {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
