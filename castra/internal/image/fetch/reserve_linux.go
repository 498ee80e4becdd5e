package fetch

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate reserves blocks for size bytes and leaves the file's length as it
// is; they are given back by a truncation.
func allocate(f *os.File, size int64) error {
	for try := 0; ; try++ {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
		if !errors.Is(err, unix.EINTR) || try == 2 {
			return err
		}
	}
}
