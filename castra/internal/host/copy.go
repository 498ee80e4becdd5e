package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
)

// sparseBlock is looked at as a whole: of zeros it becomes a hole.
const sparseBlock = 64 << 10

// CopySparse copies what is no hole and not zero to the same places in out, which holds nothing there. It ends with ctx.
func CopySparse(ctx context.Context, in, out *os.File) error {
	st, err := in.Stat()
	if err != nil {
		return err
	}
	for at, size := int64(0), st.Size(); at < size; {
		start, end := Extent(in, at, size)
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
