package warm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

const (
	// jsonLimit bounds what is read of a file that should be small.
	jsonLimit = 1 << 20
	// block is the unit in which zeros are left out of a digest.
	block = 64 << 10
)

// checkDir refuses a directory that is not ours alone: *UnsafeError.
func checkDir(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return checkStat(path, &st, unix.S_IFDIR)
}

// checkStat refuses what is not of the wanted type, or not ours alone.
func checkStat(path string, st *unix.Stat_t, want uint32) error {
	away := fmt.Sprintf("mv %s %s", quote(path), quote(path+".aside"))
	name, mode := "directory", 0o700
	if want == unix.S_IFREG {
		name, mode = "regular file", 0o600
	}
	perm := uint32(st.Mode) & 0o7777 //nolint:unconvert // 16 bits on macOS
	switch kind := uint32(st.Mode) & unix.S_IFMT; {
	case kind == unix.S_IFLNK:
		return &UnsafeError{path, "is a symlink", "rm " + quote(path)}
	case kind != want:
		return &UnsafeError{path, "is not a " + name, away}
	case int(st.Uid) != os.Geteuid():
		return &UnsafeError{path, fmt.Sprintf("belongs to uid %d, and you are uid %d", st.Uid, os.Geteuid()), away}
	case perm&0o077 != 0:
		return &UnsafeError{path, fmt.Sprintf("has mode %04o: others may get at it", perm), fmt.Sprintf("chmod %o %s", mode, quote(path))}
	}
	return nil
}

// openOwn opens a regular file of ours to read; *UnsafeError where it is none.
func openOwn(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, &UnsafeError{path, "is a symlink", "rm " + quote(path)}
	}
	if err != nil {
		return nil, err
	}
	if err := checkFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkFile(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	return checkStat(f.Name(), &st, unix.S_IFREG)
}

// lockFile opens the file at path and locks it with how, without waiting:
// errInUse where another holds it, or has moved it away meanwhile.
func lockFile(path string, flag, how int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, &UnsafeError{path, "is a symlink", "rm " + quote(path)}
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errInUse
	}
	if err == nil {
		err = stillAt(path, f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// stillAt is nil where path still names the open file f.
func stillAt(path string, f *os.File) error {
	open, err := f.Stat()
	if err != nil {
		return err
	}
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(open, now) {
		return errInUse
	}
	return err
}

// unlock gives a lock back at once: closing alone would leave it to a child
// that was forked a moment ago and has not reached its exec. Nil is fine.
func unlock(f *os.File) {
	if f != nil {
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		f.Close()
	}
}

// readJSON decodes a small file of ours.
func readJSON(path string, v any) error {
	f, err := openOwn(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return decode(f, v)
}

func decode(f *os.File, v any) error {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, jsonLimit))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// digest is that of a template's file. It is SHA-256 over the size and then,
// for each block of 64 KiB (the last may be shorter) that is not all zero, its
// offset, its length and its bytes; numbers are 8 bytes, big endian. So a hole
// costs no reading, and a copy that filled the holes with zeros is the same.
func digest(ctx context.Context, f *os.File, size int64) (string, error) {
	h := sha256.New()
	number := func(n int64) { _ = binary.Write(h, binary.BigEndian, n) }
	number(size)
	buf, zero := make([]byte, block), make([]byte, block)
	for off := int64(0); off < size; {
		start, end := host.Extent(f, off, size)
		for off = max(off, start&^(block-1)); off < end; off += block {
			if err := ctx.Err(); err != nil {
				return "", err
			}
			b := buf[:min(block, size-off)]
			if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(b))), b); err != nil {
				return "", fmt.Errorf("read %s: %w", f.Name(), err)
			}
			if !bytes.Equal(b, zero[:len(b)]) {
				number(off)
				number(int64(len(b)))
				h.Write(b)
			}
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
