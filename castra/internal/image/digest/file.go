package digest

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// chunk is how much is read at once, in bytes.
const chunk = 1 << 20

// every is the least time between two calls of a progress function.
const every = 100 * time.Millisecond

// File takes the digest of the regular file at path, which may be no symbolic
// link. progress, which may be nil, gets the bytes done and the file's size, at
// most every 100 ms and once at the end. A context that ends is heeded within a
// MiB.
func File(ctx context.Context, path, algorithm string, progress func(done, total int64)) (Digest, error) {
	d := Digest{Algorithm: algorithm}
	h := d.New()
	if h == nil {
		return Digest{}, fmt.Errorf("digest of %s: algorithm %q is not known; sha512 and sha256 are", path, algorithm)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Digest{}, fmt.Errorf("digest: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Digest{}, fmt.Errorf("digest: %w", err)
	}
	if !st.Mode().IsRegular() {
		return Digest{}, fmt.Errorf("digest of %s: not a regular file", path)
	}
	sequential(f)
	var tell func(int64)
	if progress != nil {
		tell = func(done int64) { progress(done, st.Size()) }
	}
	if _, err := Feed(ctx, h, f, tell); err != nil {
		return Digest{}, fmt.Errorf("digest of %s: %w", path, err)
	}
	return d.Of(h), nil
}

// Feed gives all of r to h and returns how many bytes that were. progress,
// which may be nil, is called at most every 100 ms and once at the end; the
// context is looked at before each MiB.
func Feed(ctx context.Context, h hash.Hash, r io.Reader, progress func(done int64)) (int64, error) {
	var done int64
	var told time.Time
	for buf := make([]byte, chunk); ; {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		done += int64(n)
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return done, err
		}
		if now := time.Now(); progress != nil && (end || now.Sub(told) >= every) {
			told = now
			progress(done)
		}
		if end {
			return done, nil
		}
	}
}
