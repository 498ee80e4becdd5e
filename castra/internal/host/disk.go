package host

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// FreeDisk is the space in bytes that an ordinary user can still write to the
// file system of path.
func FreeDisk(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// FileID is what tells a file from another that later took its name. The
// inode alone would not: its number is free again once the file is gone, and
// the next file may get it.
type FileID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Born   int64  `json:"born_ns,omitempty"` // 0: not kept by the file system, or not asked for
}

// IDOf reads the identity of an open file.
func IDOf(f *os.File) (FileID, error) {
	st, err := f.Stat()
	if err != nil {
		return FileID{}, err
	}
	id := IDOfInfo(st)
	id.Born = Born(f)
	return id, nil
}

// IDOfInfo reads the identity out of a stat, which does not tell when the file
// was born; zero where it holds none.
func IDOfInfo(info fs.FileInfo) FileID {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return FileID{Device: uint64(st.Dev), Inode: st.Ino} //nolint:unconvert // 32 bits and signed on macOS
	}
	return FileID{}
}

// DiskUsage is what a file takes on disk in bytes: less than its size where it
// is sparse.
func DiskUsage(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// TreeUsage adds up what name in fsys, with all below it, takes on disk in
// bytes. What cannot be read counts nothing.
func TreeUsage(fsys fs.FS, name string) int64 {
	var sum int64
	_ = fs.WalkDir(fsys, name, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it counts nothing
		}
		if info, err := d.Info(); err == nil {
			sum += DiskUsage(info)
		}
		return nil
	})
	return sum
}
