package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OpenBelow opens the directory called name directly in root. An os.Root
// follows symlinks that stay inside it: in a name of several parts, any that is
// swapped for one while we look leads to another directory of the root. Here
// what is reached through a symlink is an error.
func OpenBelow(root *os.Root, name string) (*os.Root, error) {
	st, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root.Name(), name)
	if !st.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	below, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	if now, err := below.Stat("."); err != nil || !os.SameFile(st, now) {
		below.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: errReplaced}
	}
	return below, nil
}

// OpenRegular opens the regular file called name directly in root to read. It
// follows no symlink and does not wait for a FIFO, also where the file is
// swapped for one while we look.
func OpenRegular(root *os.Root, name string) (*os.File, error) {
	st, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root.Name(), name)
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(st, now) {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: errReplaced}
	}
	return f, nil
}

var (
	errReplaced   = errors.New("it was replaced just now")
	errNotRegular = errors.New("not a regular file")
)
