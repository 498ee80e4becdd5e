package warm

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// writeJSON puts v at path so that a reader sees the old file or the new one.
// It is not synced: what the power cuts short is no JSON, and a miss. (Syncing
// would also wait for the gigabytes of a template written just before.)
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := stageFile(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock(f)
	if _, err = f.Write(append(b, '\n')); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// stageFile makes a file that is to be renamed, and locks it: one that is not
// locked was left by somebody who was killed.
func stageFile(dir string) (f *os.File, err error) {
	for range stageTries {
		f, err = os.CreateTemp(dir, ".tmp-") // mode 0600
		if err != nil {
			return nil, err
		}
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err == nil {
			err = stillAt(f.Name(), f)
		}
		if err == nil {
			return f, nil
		}
		f.Close()
		if !errors.Is(err, errInUse) { // or it was taken for a left one before it was locked
			return nil, errors.Join(err, os.Remove(f.Name()))
		}
	}
	return nil, err
}

// dropStaged removes from a directory of the store what killed commands were
// writing there.
func (s *Store) dropStaged(root *os.Root, dir string) error {
	entries, err := fs.ReadDir(root.FS(), dir)
	faults := []error{err}
	for _, e := range entries {
		if !e.Type().IsRegular() || !tempName.MatchString(e.Name()) {
			continue
		}
		held, err := lockFile(s.path(dir, e.Name()), os.O_RDONLY, unix.LOCK_EX)
		if err == nil {
			err = root.Remove(filepath.Join(dir, e.Name()))
			unlock(held)
		}
		if !errors.Is(err, errInUse) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
