package fetch

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/image/digest"
)

// part is the partial file, and the digest of what is in it.
type part struct {
	path string
	f    *os.File
	want digest.Digest
	sum  hash.Hash // of the first n bytes, once a pipe is finished
	n    int64     // bytes that are there and hashed, or being hashed
	need int64     // bytes it will have; 0: not known
}

// openPart opens the partial file, or makes it, empty.
func openPart(path string, want digest.Digest) (*part, error) {
	f, err := openOurs(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	return &part{path: path, f: f, want: want, sum: want.New()}, nil
}

// openOurs opens a file of this user's that has one name and is a plain file:
// no other file is changed through it.
func openOurs(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, &ForeignError{path, "it is a symbolic link"}
	case errors.Is(err, unix.EISDIR):
		return nil, &ForeignError{path, "it is a directory"}
	case errors.Is(err, unix.ENXIO):
		return nil, &ForeignError{path, "it is no regular file"}
	case err != nil:
		return nil, err
	}
	if reason := foreign(f); reason != "" {
		f.Close()
		return nil, &ForeignError{path, reason}
	}
	return f, nil
}

func foreign(f *os.File) string {
	st, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	if !st.Mode().IsRegular() {
		return "it is no regular file"
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return "its owner is not known"
	case int(sys.Uid) != os.Geteuid():
		return fmt.Sprintf("it belongs to user %d", sys.Uid)
	case sys.Nlink != 1:
		return fmt.Sprintf("it has %d names (hard links)", sys.Nlink)
	}
	return ""
}

// write appends b. What of it was written in vain is taken off again, so that
// the file never holds more than was hashed.
func (p *part) write(b []byte) error {
	if _, err := p.f.WriteAt(b, p.n); err != nil {
		return errors.Join(p.disk(err), p.f.Truncate(p.n))
	}
	p.n += int64(len(b))
	return nil
}

// disk is err, of writing the part, with what a reader wants to know besides.
func (p *part) disk(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	need := int64(-1)
	if p.need > 0 {
		need = max(p.need-p.n, 0)
	}
	return &DiskError{Path: p.path, Have: p.n, Need: need, Err: err}
}

// empty throws away what is there.
func (p *part) empty() error {
	if err := p.f.Truncate(0); err != nil {
		return p.disk(err)
	}
	p.n = 0
	p.sum.Reset()
	return removeRecord(p.path)
}

// hashStored hashes what the file holds.
func (p *part) hashStored(ctx context.Context, progress func(done int64)) error {
	if _, err := p.f.Seek(0, 0); err != nil {
		return fmt.Errorf("partial download: %w", err)
	}
	n, err := digest.Feed(ctx, p.sum, p.f, progress)
	p.n = n
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("partial download %s: %w", p.path, err)
	}
	return err
}

// digest is that of the bytes that are there.
func (p *part) digest() digest.Digest { return p.want.Of(p.sum) }

// reserve sets room for the whole file aside, so that a disk that is too small
// is told of before the download and not at its end.
func (p *part) reserve(size int64) error {
	if err := allocate(p.f, size); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return errors.Join(p.disk(err), p.f.Truncate(p.n))
	}
	return nil // the file system cannot set room aside: writing will tell
}

// stillInPlace is an error where the path leads to another file by now.
func (p *part) stillInPlace() error {
	if !p.inPlace() {
		return p.disk(errors.New("it was removed or replaced during the download"))
	}
	return nil
}

// inPlace tells whether the path still leads to the file, and not to one that
// was put there meanwhile.
func (p *part) inPlace() bool {
	st, err := p.f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(p.path)
	return err == nil && os.SameFile(st, now)
}

// remove takes the file and its record away; inPlace was asked before.
func (p *part) remove() error {
	if err := inDir(p.path, (*os.Root).Remove); err != nil {
		return fmt.Errorf("partial download: %w", err)
	}
	return removeRecord(p.path)
}

// inDir does f to a file through its directory, which a path may not lead to
// any more by the time it is looked up.
func inDir(path string, f func(dir *os.Root, name string) error) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(dir, filepath.Base(path))
}
