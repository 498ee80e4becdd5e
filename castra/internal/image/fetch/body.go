package fetch

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// flushAfter is how long bytes may wait for their buffer to fill before they
// are written, when the next ones come: what a killed process loses of a slow
// download. Where none come, it loses what is in the one buffer.
const flushAfter = time.Second

// progressEvery is the least time between two calls of Request.Progress.
const progressEvery = 100 * time.Millisecond

// tryAll takes the whole body, in as many tries as the limits allow.
func (d *download) tryAll(ctx context.Context) error {
	failures := 0
	for last := time.Now(); ; {
		err := d.try(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, errStartOver) {
			if err := d.startOver(); err != nil {
				return err
			}
			continue // at once: nothing is asked of the next answer but to be whole
		}
		now := time.Now()
		progressed := d.progressed(now.Sub(last))
		if last = now; progressed {
			failures = 0
		} else {
			failures++
		}
		if d.limits.Retries < 0 || failures > d.limits.Retries || !transient(err, progressed, d.received) {
			return err
		}
		if err := sleep(ctx, d.limits.pause(failures, err)); err != nil {
			return err
		}
	}
}

// progressed tells that there are more bytes than ever before, by more than
// the slowest server allowed would have sent in the time.
func (d *download) progressed(took time.Duration) bool {
	gained := d.part.n - d.high
	d.high = max(d.high, d.part.n)
	return gained > 0 && float64(gained) >= float64(d.limits.SlowRate)*took.Seconds()
}

// try makes one request and takes what it brings.
func (d *download) try(ctx context.Context) error {
	if d.part.n > 0 && d.part.n == d.part.need {
		return nil // the last try broke off behind the last byte
	}
	d.tries++
	if d.url.Scheme == "file" {
		return d.copyLocal(ctx)
	}
	if d.validator == "" && d.part.n > 0 {
		if err := d.startOver(); err != nil {
			return err
		}
	}
	ctx, watch, stop := watched(ctx, d.limits)
	defer stop()
	resp, err := d.open(ctx, d.part.n)
	if err != nil {
		return because(ctx, err)
	}
	defer resp.Body.Close()
	if err := d.accept(resp); err != nil {
		return err
	}
	return because(ctx, d.receive(&bodyReader{rate: d.rate, watch: watch, body: resp.Body}))
}

// because is why a request failed: what ended its context, if that did.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// bodyReader reads a body under the limits on silence and slowness. Time that
// the disk or the digest takes between two reads is not the server's.
type bodyReader struct {
	rate  *rate
	watch *watch
	body  io.Reader
}

func (b *bodyReader) Read(p []byte) (int, error) {
	begin := time.Now()
	b.watch.read()
	n, err := b.body.Read(p)
	b.watch.rest()
	if slow := b.rate.add(int64(n), time.Since(begin)); slow != nil {
		return n, slow
	}
	if err != nil && !ends(err) {
		err = &cutError{scrub(err)}
	}
	return n, err
}

// ends tells the end of a body from a connection's, which is wrapped.
func ends(err error) bool {
	return err == io.EOF //nolint:errorlint // an io.Reader's end is io.EOF itself
}

// receive appends all of body to the part, and hashes it on the way.
func (d *download) receive(body io.Reader) error {
	room := d.part.need
	if room == 0 {
		room = d.limits.Bytes
	}
	if d.part.n > room {
		return &SizeError{Got: d.part.n, Want: room, More: true}
	}
	p := startPipe(d.part.sum, d.buffers)
	defer p.finish()
	for {
		buf := <-p.free
		// One byte more than there may be tells that there is more.
		n, end := d.gather(body, buf[:min(int64(len(buf)), room-d.part.n+1)])
		if int64(n) > room-d.part.n {
			n = int(room - d.part.n)
			end = &SizeError{Got: room, Want: room, More: true}
		}
		if err := d.part.write(buf[:n]); err != nil {
			p.free <- buf
			return err
		}
		d.received = d.received || n > 0
		p.full <- buf[:n]
		switch {
		case end == nil:
		case !ends(end):
			return end
		case d.part.need > 0 && d.part.n < d.part.need && d.definite:
			return &SizeError{Got: d.part.n, Want: d.part.need}
		case d.part.need > 0 && d.part.n < d.part.need:
			return &cutError{&SizeError{Got: d.part.n, Want: d.part.need}}
		default:
			d.part.need = d.part.n
			return nil
		}
	}
}

// gather fills buf, or as much of it as comes within flushAfter.
func (d *download) gather(body io.Reader, buf []byte) (n int, err error) {
	for begin := time.Now(); n < len(buf) && err == nil && time.Since(begin) < flushAfter; {
		var m int
		m, err = body.Read(buf[n:])
		n += m
		d.tell(d.part.n + int64(n))
	}
	return n, err
}

// tell reports how many bytes are there, if it is time to.
func (d *download) tell(done int64) {
	if d.req.Progress == nil {
		return
	}
	if now := time.Now(); now.Sub(d.told) >= progressEvery {
		d.told = now
		d.req.Progress(done, d.part.need)
	}
}

// finished reports the end.
func (d *download) finished() {
	if d.req.Progress != nil {
		d.req.Progress(d.part.n, d.part.n)
	}
}

// copyLocal takes the body from a file of this computer.
func (d *download) copyLocal(ctx context.Context) error {
	if err := d.startOver(); err != nil {
		return err
	}
	f, err := os.OpenFile(d.url.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	size := d.req.Size
	switch {
	case !st.Mode().IsRegular():
		return errors.New("it is no regular file")
	case size > 0 && st.Size() != size:
		return &SizeError{Got: st.Size(), Want: size, Announced: true}
	}
	d.part.need, d.definite = st.Size(), true
	if err := d.part.reserve(st.Size()); err != nil {
		return err
	}
	return d.receive(&fileReader{ctx, f})
}

// fileReader reads a file until a context ends.
type fileReader struct {
	ctx context.Context
	f   *os.File
}

func (r *fileReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.f.Read(p)
}
