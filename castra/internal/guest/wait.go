package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// When to try, measured on QEMU 7.2's user network under TCG with dropbear:
//
//   - QEMU accepts the connection itself and then sends a SYN to the guest.
//   - While the guest has no network, nothing comes back. The SYN is kept for
//     1 s and goes out the moment the guest is heard of (DHCP, ARP), which then
//     refuses it. Else it is sent again after 6 s, even when we have closed our
//     end long ago. So a closed try is not gone: it is a stray connection to
//     the sshd that has come up meanwhile. 85 tries before the network made 45
//     of them; a few at a time slow our own login down by half a second, and
//     dropbear refuses more than 5.
//   - With a network and no listener, the connection ends within 1 to 5 ms.
//   - With a listener, the banner comes after 20 to 140 ms, and after seconds
//     where many connections are made at once.
//
// So a try that was refused is followed by the next after 25 ms: that phase
// ends when sshd listens, and is the one to be quick in. Silence is a guest
// without a network, or an sshd that is slow, and nobody can tell which. Tries
// are sparse then, but one is always less than 1 s old, and older ones are kept
// for a quarter of the time waited so far: no banner is too slow for ever.
const (
	refusedGap   = 25 * time.Millisecond
	silentGapMin = 200 * time.Millisecond
	silentGapMax = 900 * time.Millisecond
	bannerMin    = time.Second
	readyMin     = 15 * time.Second       // for the handshake, the login and a command
	loginGap     = 250 * time.Millisecond // after a banner that led to nothing
)

// Wait tries until the guest runs a command for us, and returns that
// connection. It ends with ctx alone, so give it a deadline; the error then
// holds the cause of ctx and what came of the last try. A wrong host key ends
// it at once, with a *HostKeyError, and so does an *ImpostorError. A refused login does not, since sshd may
// be up before the guest has installed the key, but it is the *LoginError
// reported when ctx ends.
//
// attempt, if not nil, hears of every try that failed, one at a time: up to 40
// a second.
func Wait(ctx context.Context, login Login, attempt func(n int, err error)) (*Client, error) {
	config, err := login.config()
	if err != nil {
		return nil, err
	}
	w := &waiter{login: login, config: config, attempt: attempt, begin: time.Now()}
	w.last = &UnreachableError{Addr: login.Addr, Last: errors.New("no answer yet")}
	for {
		conn, err := w.banner(ctx)
		if err != nil {
			return nil, err
		}
		client, err := w.ready(ctx, conn)
		if err == nil {
			return client, nil
		}
		if errors.As(err, new(*HostKeyError)) || errors.As(err, new(*ImpostorError)) {
			return nil, err
		}
		if ctx.Err() == nil {
			w.failed(err)
		}
		timer := time.NewTimer(loginGap)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, w.end(ctx)
		case <-timer.C:
		}
	}
}

type waiter struct {
	login   Login
	config  *access
	attempt func(int, error)
	begin   time.Time
	tries   int
	last    error
}

func (w *waiter) failed(err error) {
	w.tries++
	// What a login was refused for says more than the resets around it.
	var refused, now *LoginError
	if !errors.As(w.last, &refused) || errors.As(err, &now) {
		w.last = err
	}
	if w.attempt != nil {
		w.attempt(w.tries, err)
	}
}

func (w *waiter) end(ctx context.Context) error {
	waited := time.Since(w.begin).Round(100 * time.Millisecond)
	return fmt.Errorf("waited %s for SSH (%w): %w", waited, context.Cause(ctx), w.last)
}

type try struct {
	n    int
	conn net.Conn
	err  error
}

// banner makes tries until one of them hears an SSH server. The others are
// closed.
func (w *waiter) banner(ctx context.Context) (net.Conn, error) {
	var running sync.WaitGroup
	defer running.Wait()
	tryCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan try)
	timer := time.NewTimer(0)
	defer timer.Stop()
	newest, started := 0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil, w.end(ctx)
		case <-timer.C:
			newest++
			started = time.Now()
			waited := started.Sub(w.begin)
			n, limit := newest, max(bannerMin, waited/4)
			running.Go(func() { w.try(tryCtx, n, limit, results) })
			timer.Reset(min(max(silentGapMin, waited/40), silentGapMax))
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			w.failed(&UnreachableError{Addr: w.login.Addr, Last: r.err})
			if r.n == newest {
				timer.Reset(refusedGap - time.Since(started))
			}
		}
	}
}

func (w *waiter) try(ctx context.Context, n int, limit time.Duration, results chan<- try) {
	conn, err := hear(ctx, w.login.Addr, limit)
	select {
	case results <- try{n: n, conn: conn, err: err}:
	case <-ctx.Done():
		if conn != nil {
			conn.Close()
		}
	}
}

// hear connects and reads the first bytes of an SSH server's banner.
func hear(ctx context.Context, addr string, limit time.Duration) (net.Conn, error) {
	deadline := time.Now().Add(limit)
	conn, err := (&net.Dialer{Deadline: deadline}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var start [4]byte
	err = conn.SetReadDeadline(deadline)
	if err == nil {
		_, err = io.ReadFull(conn, start[:])
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("connected, but no SSH banner within %s", limit.Round(time.Millisecond))
	case err != nil:
		err = fmt.Errorf("connected, but closed before an SSH banner: %w", err)
	case string(start[:]) != "SSH-":
		err = fmt.Errorf("connected, but it is not SSH: the first bytes are %q", start)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &heardConn{Conn: conn, heard: start[:]}, nil
}

// heardConn gives the bytes that were read of the banner once more.
type heardConn struct {
	net.Conn
	heard []byte
}

func (c *heardConn) Read(p []byte) (int, error) {
	if len(c.heard) > 0 {
		n := copy(p, c.heard)
		c.heard = c.heard[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// ready goes on with a connection whose banner has begun: a login, and a
// command's round trip.
func (w *waiter) ready(ctx context.Context, conn net.Conn) (*Client, error) {
	limit := max(readyMin, time.Since(w.begin)/2)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no login within %s", limit))
	defer cancel()
	client, err := handshake(ctx, conn, w.login, w.config)
	if err != nil {
		return nil, err
	}
	err = client.Run(ctx, Command{Line: "true"})
	if err == nil {
		return client, nil
	}
	client.Close()
	var exit *ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("the user's shell cannot run `true`: %w", err)
		return nil, &LoginError{Addr: w.login.Addr, User: w.login.User, Err: err}
	}
	return nil, &UnreachableError{Addr: w.login.Addr, Last: err}
}
