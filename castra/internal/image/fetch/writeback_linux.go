package fetch

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback tells the kernel to begin writing n bytes at offset to disk,
// without waiting for them. It is advice: the sync at the end is what counts.
func startWriteback(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}
