package guest

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// target is the directory a download goes to. os.Root keeps every write in it,
// also where an entry goes through a symlink that came before.
type target struct {
	root  *os.Root
	moved *counter
	dirs  []dirMode
	links []string
}

type dirMode struct {
	name string
	mode fs.FileMode
}

// local checks a name that came from the guest.
func (t *target) local(name string) (string, error) {
	local := filepath.FromSlash(path.Clean(name))
	// Clean would hide a way up and down again, which no honest guest sends.
	if !filepath.IsLocal(local) || slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("refused %q: the name leads out of the directory", name)
	}
	return local, nil
}

func (t *target) add(header *tar.Header, content io.Reader) error {
	name, err := t.local(header.Name)
	if err != nil {
		return err
	}
	mode := fs.FileMode(header.Mode) & fs.ModePerm
	switch header.Typeflag {
	case tar.TypeDir:
		return t.dir(name, mode)
	case tar.TypeReg:
		return writeFile(t.root, name, mode, t.moved.reader(content))
	case tar.TypeSymlink:
		return t.symlink(name, header.Linkname)
	case tar.TypeLink:
		old, err := t.local(header.Linkname)
		if err != nil {
			return err
		}
		return errors.Join(removeFile(t.root, name), t.root.Link(old, name))
	}
	return fmt.Errorf("%q: is neither a file, a directory nor a symlink", header.Name)
}

// dir makes a directory that can be written to; finish gives it its mode. One
// that exists keeps its own.
func (t *target) dir(name string, mode fs.FileMode) error {
	if name == "." {
		return nil
	}
	err := t.root.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		info, statErr := t.root.Lstat(name)
		if statErr != nil || !info.IsDir() {
			return errors.Join(err, statErr)
		}
		mode = info.Mode().Perm()
		err = t.root.Chmod(name, mode|0o700)
	}
	if err == nil {
		t.dirs = append(t.dirs, dirMode{name: name, mode: mode})
	}
	return err
}

func (t *target) symlink(name, to string) error {
	at := path.Join(path.Dir(filepath.ToSlash(name)), to)
	if path.IsAbs(to) || !filepath.IsLocal(filepath.FromSlash(at)) {
		return fmt.Errorf("refused %q: the symlink leads out of the directory, to %q", name, to)
	}
	if err := removeFile(t.root, name); err != nil {
		return err
	}
	t.links = append(t.links, name)
	return t.root.Symlink(to, name)
}

// finish gives directories their modes, and looks at the symlinks once more:
// each may be harmless as written and yet lead out through another.
func (t *target) finish() error {
	var errs []error
	for _, name := range t.links {
		if _, err := t.root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("refused symlink: %w", err), t.root.Remove(name))
		}
	}
	for _, d := range slices.Backward(t.dirs) {
		errs = append(errs, t.root.Chmod(d.name, d.mode))
	}
	return errors.Join(errs...)
}

// writeFile makes a file, or replaces it when the content is complete.
func writeFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	part := filepath.Join(filepath.Dir(name), partName())
	file, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err == nil {
		err = file.Chmod(mode & fs.ModePerm)
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(part))
	}
	return nil
}

// removeFile makes room for an entry; a directory in its place stays.
func removeFile(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s: is a directory here", name)
	}
	return root.Remove(name)
}
