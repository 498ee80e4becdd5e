package host

import (
	"os"

	"golang.org/x/sys/unix"
)

// Born is when the file's inode was made, in nanoseconds; 0 where the file
// system does not keep it.
func Born(f *os.File) int64 {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}
