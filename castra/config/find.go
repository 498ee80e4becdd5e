package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// FileName is the name of a project's configuration.
const FileName = "castra.toml"

// Find looks for castra.toml in dir, an absolute path, and upward to the root.
// It fails with a *NotFoundError, or with the error of the system where it may
// not look. A symbolic link that leads nowhere counts as found: Load says what
// is wrong with it.
func Find(dir string) (string, error) {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		file := filepath.Join(at, FileName)
		if _, err := os.Lstat(file); err == nil {
			return file, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if at == filepath.Dir(at) {
			return "", &NotFoundError{dir}
		}
	}
}
