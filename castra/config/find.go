package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// sizeLimit bounds castra.toml in bytes.
const sizeLimit = 1 << 20

// Find looks for castra.toml in dir, an absolute path, and upward to the root.
// It fails with a *NotFoundError.
func Find(dir string) (string, error) {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		file := filepath.Join(at, FileName)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if at == filepath.Dir(at) {
			return "", &NotFoundError{dir}
		}
	}
}

// read takes a regular file of bounded size, and never waits for one that is
// not.
func read(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &Error{File: file, Problem: "not a regular file", Help: "give the path of a " + FileName}
	}
	if st.Size() > sizeLimit {
		return nil, &Error{File: file, Problem: fmt.Sprintf("larger than %d KiB", sizeLimit>>10), Help: "is it the right file?"}
	}
	return io.ReadAll(io.LimitReader(f, sizeLimit))
}

// text checks the encoding and drops one byte-order mark.
func text(file string, data []byte) (string, error) {
	const utf8Help = "save the file as UTF-8"
	bom := []byte("\xef\xbb\xbf")
	rest := bytes.TrimPrefix(data, bom)
	problem := ""
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		problem = "it is UTF-16, and TOML is UTF-8"
	case bytes.HasPrefix(rest, bom):
		problem = "it begins with two byte-order marks"
	case bytes.IndexByte(rest, 0) >= 0:
		problem = "it holds a NUL byte: not TOML, or UTF-16"
	case !utf8.Valid(rest):
		problem = "it is not UTF-8"
	case bytes.Contains(bytes.ReplaceAll(rest, []byte("\r\n"), nil), []byte("\r")):
		problem = "its lines end with a bare CR"
	default:
		return string(rest), nil
	}
	return "", Faults{{File: file, Line: 1, Problem: "encoding: " + problem, Help: utf8Help}}
}
