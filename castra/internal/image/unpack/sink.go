package unpack

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"os"
)

// blockSize is the unit in which zeros become holes.
const blockSize = 64 << 10

var zeros = make([]byte, blockSize)

// sink writes a sparse file, takes its digest and keeps it within limits. Its
// first error is its last.
type sink struct {
	ctx    context.Context
	f      *os.File
	limits Limits
	hash   hash.Hash
	buf    []byte // the block that is not full yet
	size   int64  // of all that came, buf included
	used   int64  // bytes written, which are not in holes
	err    error
}

func newSink(ctx context.Context, f *os.File, limits Limits) *sink {
	return &sink{ctx: ctx, f: f, limits: limits, hash: sha512.New(), buf: make([]byte, 0, blockSize)}
}

func (s *sink) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 && s.err == nil {
		n := min(len(p), blockSize-len(s.buf))
		if s.size+int64(n) > s.limits.Size {
			s.err = &LimitError{Limit: s.limits.Size}
			break
		}
		whole := p[:n]
		if n < blockSize {
			s.buf = append(s.buf, whole...)
			whole = s.buf
		}
		s.size += int64(n)
		written += n
		p = p[n:]
		if len(whole) == blockSize {
			s.flush(whole)
		}
	}
	return written, s.err
}

// flush puts a block at the end of the file.
func (s *sink) flush(block []byte) {
	s.buf = s.buf[:0]
	if s.ctx.Err() != nil {
		s.err = context.Cause(s.ctx)
		return
	}
	s.hash.Write(block)
	if bytes.Equal(block, zeros[:len(block)]) {
		return
	}
	s.used += int64(len(block))
	if s.limits.Room > 0 && s.used > s.limits.Room {
		s.err = &LimitError{Limit: s.limits.Room, Room: true}
		return
	}
	_, s.err = s.f.WriteAt(block, s.size-int64(len(block)))
}

// finish writes what is left, and a hole at the end.
func (s *sink) finish() error {
	if s.err == nil && len(s.buf) > 0 {
		s.flush(s.buf)
	}
	if s.err == nil {
		s.err = s.f.Truncate(s.size)
	}
	return s.err
}

func (s *sink) result() Result {
	return Result{Size: s.size, SHA512: hex.EncodeToString(s.hash.Sum(nil))}
}
