package host

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Extent is the first stretch of data of f at or after off: [start, end). It is
// empty and at size where all the rest is a hole. Where the file system does not
// tell, all the rest is data.
func Extent(f *os.File, off, size int64) (start, end int64) {
	start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size
	}
	if err != nil {
		return off, size
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil || end <= start {
		return start, size
	}
	return start, min(end, size)
}
