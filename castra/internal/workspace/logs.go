package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RotateLog keeps a log once, as name.1, where it is longer than limit bytes; a
// limit below zero is that of any log. One that is not there is no error.
func (w *Workspace) RotateLog(file string, limit int64) error {
	dir, err := w.openDir(logsName)
	if err != nil {
		return fmt.Errorf("log %s: %w", file, err)
	}
	defer dir.Close()
	name := filepath.Base(file)
	st, err := dir.Lstat(name)
	if err == nil && st.Size() > limit {
		err = dir.Rename(name, name+".1")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("log %s: %w", file, err)
	}
	return nil
}

// AppendLog opens a log to write at its end, and makes it where there is none.
// What was left in its place is no file that may be written to, unless it is a
// plain one of one name: a FIFO would wait, a hard link is another's file too.
func (w *Workspace) AppendLog(file string) (*os.File, error) {
	dir, err := w.openDir(logsName)
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", file, err)
	}
	defer dir.Close()
	name := filepath.Base(file)
	if st, err := dir.Lstat(name); err == nil && !plain(st) {
		return nil, fmt.Errorf("log %s: it is no regular file of its own; move it away", file)
	}
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", file, err)
	}
	if st, err := f.Stat(); err != nil || !plain(st) {
		f.Close()
		return nil, fmt.Errorf("log %s: it was replaced just now: %w", file, errors.Join(err, fs.ErrInvalid))
	}
	return f, nil
}
