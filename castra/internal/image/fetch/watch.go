package fetch

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"
)

// watch ends a context, with a *StalledError as the cause, when what is
// waited for does not come in time. It works with any client, proxies
// included, since it goes by what the client's trace tells.
type watch struct {
	limits Limits
	timer  *time.Timer

	mu    sync.Mutex
	doing string
	limit time.Duration
	body  bool
}

// watched derives a context that a watch ends; stop must be called.
func watched(ctx context.Context, limits Limits) (watchedCtx context.Context, w *watch, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w = &watch{limits: limits, doing: "waiting for the response", limit: limits.Header}
	w.timer = time.AfterFunc(w.limit, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		cancel(&StalledError{Doing: w.doing, Limit: w.limit})
	})
	return httptrace.WithClientTrace(ctx, w.trace()), w, func() {
		w.timer.Stop()
		cancel(context.Canceled)
	}
}

// expect starts to wait for something on the way to the response. Of a second
// connection, tried beside the one that won, the trace may tell later.
func (w *watch) expect(doing string, limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.body {
		w.doing, w.limit = doing, limit
		w.timer.Reset(limit)
	}
}

// read starts to wait for a piece of the body.
func (w *watch) read() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.body, w.doing, w.limit = true, "waiting for the body", w.limits.Stall
	w.timer.Reset(w.limit)
}

// rest waits for nothing.
func (w *watch) rest() { w.timer.Stop() }

func (w *watch) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(addr string) { w.expect("connecting to "+addr, w.limits.Connect) },
		// A TLS handshake follows at once, or first a proxy's answer.
		ConnectDone: func(_, addr string, err error) {
			if err == nil {
				w.expect("waiting for "+addr, w.limits.Header)
			}
		},
		TLSHandshakeStart: func() { w.expect("waiting for the TLS handshake", w.limits.TLS) },
		TLSHandshakeDone:  func(tls.ConnectionState, error) { w.expect("waiting for the response", w.limits.Header) },
		GotConn:           func(httptrace.GotConnInfo) { w.expect("waiting for the response", w.limits.Header) },
	}
}
