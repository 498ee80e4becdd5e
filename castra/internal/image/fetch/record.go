package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"castra.example/castra/castra/internal/image/digest"
)

// record is what Part+".json" keeps beside a partial file so that a later run
// can resume it.
type record struct {
	URL       string `json:"url"`       // without user information
	Digest    string `json:"digest"`    // that the whole file shall have
	Validator string `json:"validator"` // a strong ETag in quotes, or a Last-Modified date; "": not resumable
	Bytes     int64  `json:"bytes"`     // hashed when this was written; there may be more since
}

const (
	recordSuffix = ".json"
	maxRecord    = 64 << 10
)

// readRecord is the record beside a part; a zero one where there is none or
// it is damaged.
func readRecord(part string) (record, error) {
	f, err := openOurs(part+recordSuffix, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return record{}, fmt.Errorf("record of a partial download: %w", err)
	}
	var r record
	if json.Unmarshal(text, &r) != nil {
		return record{}, nil
	}
	return r, nil
}

// resumes tells whether what lies in the part may be the beginning of want.
func (r record) resumes(url string, want digest.Digest, size, there int64) bool {
	known, err := digest.Parse(r.Digest)
	return err == nil && known == want && r.URL == url && sendable(r.Validator) && there >= r.Bytes && (size == 0 || there <= size)
}

// sendable tells that a validator can stand in a header.
func sendable(validator string) bool {
	return validator != "" && !strings.ContainsFunc(validator, func(c rune) bool { return c < ' ' || c > '~' })
}

// write replaces the record beside a part.
func (r record) write(part string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of a partial download: %w", err)
	}
	beside := part + recordSuffix + ".new"
	f, err := openOurs(beside, os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(0), writeAll(f, append(text, '\n'))); err != nil {
		return &DiskError{Path: beside, Need: int64(len(text)), Err: err}
	}
	if err := inDir(beside, func(dir *os.Root, name string) error { return dir.Rename(name, filepath.Base(part)+recordSuffix) }); err != nil {
		return fmt.Errorf("record of a partial download: %w", err)
	}
	return nil
}

func writeAll(f *os.File, b []byte) error {
	_, err := f.Write(b)
	return err
}

// removeRecord removes the record beside a part, and what a killed process left
// of the next one.
func removeRecord(part string) error {
	for _, path := range []string{part + recordSuffix, part + recordSuffix + ".new"} {
		f, err := openOurs(path, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		f.Close()
		if err := inDir(path, (*os.Root).Remove); err != nil {
			return fmt.Errorf("record of a partial download: %w", err)
		}
	}
	return nil
}
