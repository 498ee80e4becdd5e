// Package unpack takes a compressed disk image apart, within bounds: what
// comes out, and the memory that it takes, do not depend on what the file says
// of itself.
package unpack

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	// MaxSize is how large a disk may come out, in bytes, where Limits say
	// nothing.
	MaxSize = 64 << 30
	// maxWindow is the largest dictionary or window that is given memory.
	maxWindow = 32 << 20
	// progressEvery is how often progress is called at most.
	progressEvery = 100 * time.Millisecond
)

// Form is a way of compressing a file.
type Form string

// The forms that are known; None is any other file.
const (
	None Form = ""
	Gzip Form = "gz"
	XZ   Form = "xz"
	Zstd Form = "zst"
)

// Detect tells the form of a file by its first bytes, six or more: RFC 1952,
// RFC 8878 and the .xz file format 1.2.1 give the magic numbers.
func Detect(head []byte) Form {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return Gzip
	case bytes.HasPrefix(head, xzMagic):
		return XZ
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	}
	return None
}

// Error says: the file is not a whole compressed file that Castra unpacks.
type Error struct {
	Form    Form
	Problem string
	Help    string
	Err     error // what the decoder said; may be nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("unpack %s: %s: %s", e.Form, e.Problem, e.Err)
	}
	return fmt.Sprintf("unpack %s: %s", e.Form, e.Problem)
}
func (e *Error) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *Error) Hint() string { return e.Help }

const (
	helpDamaged = "the file is damaged where it was made: tell its publisher, or use another image"
	helpByHand  = "unpack it by hand and use the disk as base_image"
	helpWindow  = "unpack it by hand and use the disk as base_image, or pack it anew with a window of at most 32 MiB (xz -6, zstd --long=25)"
)

// Limits bound what may come out.
type Limits struct {
	Size int64 // bytes, holes included; 0: MaxSize
	Room int64 // bytes that are not in holes; 0: no limit but Size
}

// LimitError says: more would come out than may.
type LimitError struct {
	Limit int64 // bytes
	Room  bool  // it is the room on disk that is too small
}

func (e *LimitError) Error() string {
	if e.Room {
		return fmt.Sprintf("the unpacked image is larger than the room there is (%d bytes)", e.Limit)
	}
	return fmt.Sprintf("the unpacked image is larger than %d bytes", e.Limit)
}

// Hint says what to do next.
func (e *LimitError) Hint() string {
	if e.Room {
		return "make room on the disk, or set CASTRA_HOME to a directory on another one"
	}
	return "unpack it by hand, look whether it is what it should be, and use the disk as base_image"
}

// Result tells of an unpacked file.
type Result struct {
	Size   int64  // bytes, holes included
	SHA512 string // of all of it, lower-case hexadecimal
}

// File unpacks src, a compressed file from its beginning, into dst, an empty
// one: blocks of 64 KiB of zeros become holes. Progress, which may be nil, hears
// how many bytes of src are done. At most 64 MB of memory are used. Errors are
// *Error, *LimitError, of the file system, or the cause of ctx; dst then holds
// a part.
func File(ctx context.Context, src, dst *os.File, limits Limits, progress func(done, total int64)) (Result, error) {
	st, err := src.Stat()
	if err != nil {
		return Result{}, err
	}
	if limits.Size == 0 {
		limits.Size = MaxSize
	}
	out := newSink(ctx, dst, limits)
	in := bufio.NewReaderSize(&watched{ctx: ctx, r: src, total: st.Size(), progress: progress}, blockSize)
	head, err := in.Peek(len(xzMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return Result{}, err
	}
	form := Detect(head)
	switch form {
	case Gzip:
		err = gunzip(in, out)
	case XZ:
		err = unxz(in, out)
	case Zstd:
		err = unzstd(in, out)
	default:
		return Result{}, &Error{Form: "image", Problem: "not a file of gzip, xz or zstd", Help: helpDamaged}
	}
	if err == nil {
		err = out.finish()
	}
	if err != nil {
		return Result{}, explain(ctx, form, out, err)
	}
	return out.result(), nil
}

// explain tells whose fault err is: ours and the disk's stay as they are.
func explain(ctx context.Context, form Form, out *sink, err error) error {
	var known *Error
	var path *os.PathError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case out.err != nil:
		return out.err
	case errors.As(err, &known), errors.As(err, &path):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &Error{form, "the file ends too early", helpDamaged, nil}
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return &Error{form, "it needs a window of more than 32 MiB", helpWindow, nil}
	case out.size > 0 && (errors.Is(err, gzip.ErrHeader) || errors.Is(err, zstd.ErrMagicMismatch)):
		return &Error{form, "other bytes follow the compressed ones", helpDamaged, nil}
	}
	return &Error{form, "the file is damaged", helpDamaged, err}
}

func gunzip(in *bufio.Reader, out *sink) error {
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(out, z, make([]byte, blockSize))
	return err
}

func unzstd(in *bufio.Reader, out *sink) error {
	// One decoder without goroutines: the memory is one window and little more.
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = z.WriteTo(out)
	return err
}

// watched is a reader that tells of its progress and ends with ctx.
type watched struct {
	ctx         context.Context
	r           io.Reader
	done, total int64
	progress    func(done, total int64)
	told        time.Time
}

func (w *watched) Read(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.r.Read(p)
	w.done += int64(n)
	if w.progress != nil && (time.Since(w.told) >= progressEvery || w.done == w.total && n > 0) {
		w.told = time.Now()
		w.progress(w.done, w.total)
	}
	return n, err
}
