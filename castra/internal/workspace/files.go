package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// recordLimit bounds what is read of a record: a file left by someone else
// may be anything.
const recordLimit = 1 << 20

// WriteFile puts data at path so that a reader, or the power, sees the old
// file or the new one and never a part: written beside, synced, renamed, and
// the directory synced. The mode is 0600 whatever the umask.
func WriteFile(path string, data []byte) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err == nil {
		defer dir.Close()
		err = replaceFile(dir, filepath.Base(path), data)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// writeFile is WriteFile of a file in one of the workspace's directories, which
// must not be a symlink to another.
func (w *Workspace) writeFile(path string, data []byte) error {
	dir, err := w.openDir(filepath.Base(filepath.Dir(path)))
	if err == nil {
		defer dir.Close()
		err = replaceFile(dir, filepath.Base(path), data)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// openDir opens one of the workspace's directories, and none that a symlink
// leads to.
func (w *Workspace) openDir(name string) (*os.Root, error) {
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return host.OpenBelow(root, name)
}

func replaceFile(dir *os.Root, name string, data []byte) error {
	half, err := writeBeside(dir, "."+name, data)
	if err == nil {
		err = dir.Rename(half, name)
	}
	if err != nil {
		return errors.Join(err, discardHalf(dir, half))
	}
	return syncDir(dir)
}

// writeBeside writes a file that is not in place yet, and gives its name, which
// is prefix and a number; "" where none was made.
func writeBeside(dir *os.Root, prefix string, data []byte) (name string, err error) {
	name = prefix + strconv.FormatUint(rand.Uint64(), 10)
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	return name, errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close())
}

func discardHalf(dir *os.Root, name string) error {
	if name == "" {
		return nil
	}
	if err := dir.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// CreateFile is WriteFile where there is no file yet, of which it leaves what
// it is: of several that create one at once, the first is right. Staged is how
// the name of the file begins that is written beside first, and of no other:
// once there is one at path, those that killed commands had staged go.
func CreateFile(path, staged string, data []byte) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	half, err := writeBeside(dir, staged, data)
	if err == nil {
		err = dir.Link(half, filepath.Base(path)) // unlike a rename, it replaces nothing
	}
	if _, there := os.Lstat(path); errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) && there == nil { // who was first may have removed ours
		err = nil
	}
	if err != nil {
		return errors.Join(err, discardHalf(dir, half))
	}
	return errors.Join(removeBeginning(dir, staged), syncDir(dir))
}

// removeBeginning removes the files in dir whose names begin so.
func removeBeginning(dir *os.Root, prefix string) error {
	entries, err := fs.ReadDir(dir.FS(), ".")
	faults := []error{err}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			if err := dir.Remove(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				faults = append(faults, fmt.Errorf("remove %s: %w", filepath.Join(dir.Name(), e.Name()), err))
			}
		}
	}
	return errors.Join(faults...)
}

// WriteJSON is WriteFile for a value.
func WriteJSON(path string, v any) error {
	b, err := marshal(path, v)
	if err != nil {
		return err
	}
	return WriteFile(path, b)
}

// writeJSON is writeFile for a value.
func (w *Workspace) writeJSON(path string, v any) error {
	b, err := marshal(path, v)
	if err != nil {
		return err
	}
	return w.writeFile(path, b)
}

func marshal(path string, v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return append(b, '\n'), nil
}

// syncDir makes renames in a directory last.
func syncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir.Name(), err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems cannot sync a directory
		return fmt.Errorf("sync %s: %w", dir.Name(), err)
	}
	return nil
}

// readRecord reads a small regular file of our own: no symlink, no FIFO that
// would hang, nothing larger than a record can be.
func readRecord(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s: a symlink, and no record of Castra's", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > recordLimit {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, recordLimit)
	}
	return io.ReadAll(io.LimitReader(f, recordLimit))
}

// readJSON decodes a record.
func readJSON(path string, v any) error {
	b, err := readRecord(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
