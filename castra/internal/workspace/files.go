package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// recordLimit bounds what is read of a record: a file left by someone else
// may be anything.
const recordLimit = 1 << 20

// WriteFile puts data at path so that a reader, or the power, sees the old
// file or the new one and never a part: written beside, synced, renamed, and
// the directory synced. The mode is 0600 whatever the umask.
func WriteFile(path string, data []byte) error {
	// Not renameio.WriteFile, which keeps the mode of an older file and may
	// stage the new one in a shared temporary directory.
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer f.Cleanup()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// CreateFile is WriteFile where there is no file yet, of which it leaves what
// it is: of several that create one at once, the first is right. Staged is how
// the name of the file begins that is written beside first.
func CreateFile(path, staged string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), staged+"*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Link(f.Name(), path) // unlike a rename, it replaces nothing
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(f.Name()), syncDir(filepath.Dir(path)))
}

// WriteJSON is WriteFile for a value.
func WriteJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return WriteFile(path, append(b, '\n'))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems cannot sync a directory
		return fmt.Errorf("sync %s: %w", dir, err)
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
