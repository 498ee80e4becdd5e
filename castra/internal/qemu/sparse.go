package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"

	"castra.example/castra/castra/internal/host"
)

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
	return host.CopySparse(ctx, in, out)
}
