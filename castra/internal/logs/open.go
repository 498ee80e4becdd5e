package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// open returns nil for a file that is not there. O_NONBLOCK keeps a FIFO left
// in the log's place from blocking.
func open(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case errors.Is(err, syscall.ELOOP):
		return nil, nil, fmt.Errorf("read log: %s is a symbolic link, not a regular file", path)
	case err != nil:
		return nil, nil, readError(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file (%s)", path, info.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, nil, readError(err)
	}
	return f, info, nil
}

func readError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read log: %w", err)
}
