package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// smallFile bounds what is read of a file that should be small.
const smallFile = 64 << 10

// checkOwn refuses what is not of the wanted kind, or not the user's alone to
// change: *UnsafeError.
func checkOwn(path string, st fs.FileInfo, dir bool) error {
	away := fmt.Sprintf("mv %s %s", quote(path), quote(path+".aside"))
	owner, known := st.Sys().(*syscall.Stat_t)
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		return &UnsafeError{path, "is a symlink", "rm " + quote(path)}
	case dir && !st.IsDir():
		return &UnsafeError{path, "is not a directory", away}
	case !dir && !st.Mode().IsRegular():
		return &UnsafeError{path, "is not a regular file", away}
	case known && int(owner.Uid) != os.Geteuid():
		return &UnsafeError{path, fmt.Sprintf("belongs to uid %d, and you are uid %d", owner.Uid, os.Geteuid()), away}
	case st.Mode().Perm()&0o022 != 0:
		return &UnsafeError{path, fmt.Sprintf("has mode %04o: others may change it", st.Mode().Perm()), "chmod go-w " + quote(path)}
	}
	return nil
}

// openHome opens CASTRA_HOME, which may be reached by a symlink.
func openHome(home string, create bool) (*os.Root, error) {
	if !filepath.IsAbs(home) {
		return nil, fmt.Errorf("home %q: not an absolute path", home)
	}
	if create {
		if err := os.MkdirAll(home, 0o700); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(home)
	if err != nil {
		return nil, err
	}
	st, err := root.Stat(".")
	if err == nil {
		err = checkOwn(home, st, true)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// openBelow opens a directory of ours directly below root.
func openBelow(root *os.Root, name string, create bool) (*os.Root, error) {
	if create {
		if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	st, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if err := checkOwn(filepath.Join(root.Name(), name), st, true); err != nil {
		return nil, err
	}
	below, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	if now, err := below.Stat("."); err != nil || !os.SameFile(st, now) {
		below.Close()
		return nil, &UnsafeError{filepath.Join(root.Name(), name), "was replaced just now", "try again"}
	}
	return below, nil
}

// openOwn opens a regular file of ours to read; *UnsafeError where it is none.
func openOwn(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if st, statErr := root.Lstat(name); statErr == nil && !st.Mode().IsRegular() {
			return nil, checkOwn(filepath.Join(root.Name(), name), st, false)
		}
		return nil, err
	}
	st, err := f.Stat()
	if err == nil {
		err = checkOwn(f.Name(), st, false)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readSmall reads a small file of ours.
func readSmall(root *os.Root, name string) ([]byte, error) {
	f, err := openOwn(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, smallFile))
}

// replaceFile puts data at name so that a reader, or the power, sees the old
// file or the new one. The file beside it has a fixed name: the caller holds a
// lock.
func replaceFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	beside := besideName(name)
	if err := removeName(root, beside); err != nil {
		return err
	}
	f, err := root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = root.Rename(beside, name)
	}
	if err != nil {
		return errors.Join(err, removeName(root, beside))
	}
	return syncRoot(root)
}

// besideName is what a file is called until it is whole.
func besideName(name string) string { return "." + name + ".castra-part" }

// removeName removes a file; one that is gone is no error.
func removeName(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncRoot makes renames in a directory last.
func syncRoot(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems cannot
		return err
	}
	return nil
}
