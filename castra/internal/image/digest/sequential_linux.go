package digest

import (
	"os"

	"golang.org/x/sys/unix"
)

// sequential makes the kernel read farther ahead; it is advice, and a failure
// changes only the speed.
func sequential(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
}
