package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"castra.example/castra/castra/internal/host"
)

// sparseBlock is looked at as a whole: of zeros it becomes a hole.
const sparseBlock = 64 << 10

// copySparse copies a file so that its holes, and blocks of zeros, take no room in the copy, which must not exist.
func copySparse(ctx context.Context, from, to string) error {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return copyInto(ctx, from, out)
}

// copyInto replaces what out holds, and closes it.
func copyInto(ctx context.Context, from string, out *os.File) (err error) {
	to := out.Name()
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = fmt.Errorf("copy %s to %s: %w", from, to, err)
		}
	}()
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	for _, size := range []int64{0, st.Size()} {
		if err := out.Truncate(size); err != nil {
			return err
		}
	}
	return copyData(ctx, in, out)
}

// copyData copies what is no hole and not zero.
func copyData(ctx context.Context, in, out *os.File) error {
	st, err := in.Stat()
	if err != nil {
		return err
	}
	for at, size := int64(0), st.Size(); at < size; {
		start, end := host.Extent(in, at, size)
		if err := copyExtent(ctx, in, out, start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

func copyExtent(ctx context.Context, in io.ReaderAt, out io.WriterAt, at, end int64) error {
	buffer, zeros := make([]byte, 16*sparseBlock), make([]byte, sparseBlock)
	for at < end {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := in.ReadAt(buffer[:min(int64(len(buffer)), end-at)], at)
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			return err
		}
		for i := 0; i < n; i += sparseBlock {
			block := buffer[i:min(i+sparseBlock, n)]
			if bytes.Equal(block, zeros[:len(block)]) {
				continue
			}
			if _, err := out.WriteAt(block, at+int64(i)); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	return nil
}
