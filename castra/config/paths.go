package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxPath is the length in bytes that Linux takes.
const maxPath = 4095

const emptyHelp = "write a path, or leave the key out"

func (t *table) pathHelp() string {
	return "write a path that is absolute, or relative to the directory of " + filepath.Base(t.f.file)
}

// resolve resolves one against the directory of the file it stands in.
func (t *table) resolve(key, path string) (abs string, ok bool) {
	abs = filepath.Join(t.f.dir, path)
	if filepath.IsAbs(path) {
		abs = filepath.Clean(path)
	}
	switch {
	case strings.HasPrefix(path, "~"), strings.HasPrefix(path, "$"):
		t.fault(key, path[:1]+" is not expanded", "write an absolute path")
	case len(abs) > maxPath:
		t.fault(key, fmt.Sprintf("the path has %d bytes", len(abs)), fmt.Sprintf("write one of at most %d", maxPath))
	default:
		return abs, true
	}
	return "", false
}

// existing is the absolute path that key gives, of something that is there; ""
// where key gives none.
func (l *loader) existing(t *table, key string) (string, fs.FileMode) {
	s, ok := t.filled(key, emptyHelp)
	if !ok {
		return "", 0
	}
	abs, ok := t.resolve(key, s)
	if !ok {
		return "", 0
	}
	if l.recorded {
		return abs, 0
	}
	st, err := os.Stat(abs)
	if err != nil {
		t.fault(key, reason(err, abs), t.pathHelp())
		return "", 0
	}
	return abs, st.Mode()
}

// file is existing for a file.
func (l *loader) file(t *table, key string) string {
	abs, mode := l.existing(t, key)
	if abs != "" && !l.recorded && !mode.IsRegular() {
		t.fault(key, abs+" is not a regular file", "give the path of a file")
		return ""
	}
	return abs
}

// reason says in a few words why a file cannot be had.
func reason(err error, path string) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path + " does not exist"
	case errors.Is(err, fs.ErrPermission):
		return path + " may not be read"
	default:
		return err.Error()
	}
}

// realPath resolves the links in as much of an absolute path as exists.
func realPath(path string) string {
	rest := ""
	for at := path; ; at = filepath.Dir(at) {
		if found, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(found, rest)
		}
		if at == filepath.Dir(at) {
			return path
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}
