package host

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ClockGrain is how long a file must have been left alone for its times to
// tell a later write from an earlier one.
const ClockGrain = 2 * time.Second

// Identity changes whenever a file is written to, replaced or copied: nobody
// but root can set a ctime.
type Identity struct {
	Device    uint64 `json:"dev"`
	Inode     uint64 `json:"ino"`
	Bytes     int64  `json:"size"`
	MtimeNsec int64  `json:"mtime_ns"`
	CtimeNsec int64  `json:"ctime_ns"`
}

// Identify reads the identity of an open file.
func Identify(f *os.File) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Identity{}, fmt.Errorf("identity of %s: %w", f.Name(), err)
	}
	return Identity{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil //nolint:unconvert // 32 bits and signed on macOS
}

// Settled tells that the file had been left alone for long enough at a time
// for every write since to show in its identity.
func (i Identity) Settled(at time.Time) bool {
	begun := at.Add(-ClockGrain).UnixNano()
	return i.MtimeNsec < begun && i.CtimeNsec < begun
}
