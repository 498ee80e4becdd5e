package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"castra.example/castra/castra/internal/host"
)

// schemaVersion of session.json, workspace.json and the entries of the index.
const schemaVersion = 1

// Record is metadata/workspace.json: whose workspace this is.
type Record struct {
	Schema       int       `json:"schema_version"`
	ID           string    `json:"workspace"`
	Project      string    `json:"project"`
	Config       string    `json:"config"`
	ConfigDigest string    `json:"config_digest"`
	Bootstrap    []string  `json:"bootstrap_policy"` // vm=mode
	Invocation   []string  `json:"invocation"`
	VMs          []string  `json:"vms"`
	Updated      time.Time `json:"updated"`
}

// LoadRecord reads workspace.json. Fs.ErrNotExist is in the error where there
// is none yet; a *RecordError says that it is damaged, or a later Castra's.
func (w *Workspace) LoadRecord() (*Record, error) {
	r := &Record{}
	if err := loadRecord(w.Record(), r, &r.Schema); err != nil {
		return nil, err
	}
	return r, nil
}

// SaveRecord writes workspace.json and the snapshot of castra.toml; the caller
// holds the lock. A damaged record is set aside first; over that of a later
// Castra nothing is written, and that is a *RecordError.
func (w *Workspace) SaveRecord(r Record, snapshot []byte) error {
	if err := w.MakeDir(w.Metadata()); err != nil {
		return err
	}
	var bad *RecordError
	if _, err := w.LoadRecord(); errors.As(err, &bad) {
		if bad.Newer {
			return err
		}
		if _, moveErr := w.setAside(w.Record()); moveErr != nil {
			return errors.Join(err, moveErr)
		}
	}
	r.Schema, r.ID, r.Updated = schemaVersion, w.ID, time.Now().UTC()
	if err := w.writeJSON(w.Record(), r); err != nil {
		return err
	}
	return w.writeFile(w.Snapshot(), snapshot)
}

// loadRecord decodes a record of this schema; schema points at its version in v.
func loadRecord(path string, v any, schema *int) error {
	err := readJSON(path, v)
	switch {
	case errors.As(err, new(*fs.PathError)):
		return err // it could not be read; nothing is said of what it holds
	case newer(path):
		return &RecordError{path, fmt.Errorf("its schema version is newer than this Castra's %d", schemaVersion), true}
	case err != nil:
		return &RecordError{Path: path, Err: err}
	case *schema != schemaVersion:
		return &RecordError{Path: path, Err: fmt.Errorf("schema version %d is none that this Castra knows", *schema)}
	}
	return nil
}

// newer tells that a later Castra wrote the record. What else it holds may be
// of a shape that this one cannot decode.
func newer(path string) bool {
	var head struct {
		Schema int `json:"schema_version"`
	}
	b, err := readRecord(path)
	return err == nil && json.Unmarshal(b, &head) == nil && head.Schema > schemaVersion
}

// RecordError says: a record of the workspace cannot be used.
type RecordError struct {
	Path string
	Err  error
	// Newer: a later Castra wrote it, so this one must not write over it.
	Newer bool
}

func (e *RecordError) Error() string { return fmt.Sprintf("record %s: %v", e.Path, e.Err) }
func (e *RecordError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *RecordError) Hint() string {
	if e.Newer {
		return "use the Castra that wrote it, or a later one"
	}
	return "mage down ends what still runs and writes a new record"
}

// asideLimit bounds how many damaged records are kept beside one.
const asideLimit = 99

// SetAside renames a damaged file, and gives its new path.
func SetAside(path string) (string, error) {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	defer dir.Close()
	return setAside(dir, path)
}

// setAside renames a damaged record, and gives its new path.
func (w *Workspace) setAside(path string) (string, error) {
	root, err := w.OpenRoot()
	if err != nil {
		return "", err
	}
	defer root.Close()
	dir, err := host.OpenBelow(root, metadataName)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	return setAside(dir, path)
}

func setAside(dir *os.Root, path string) (string, error) {
	for n := 1; n <= asideLimit; n++ {
		aside := fmt.Sprintf("%s%s%d", path, asideInfix, n)
		if _, err := dir.Lstat(filepath.Base(aside)); errors.Is(err, fs.ErrNotExist) {
			return aside, dir.Rename(filepath.Base(path), filepath.Base(aside))
		}
	}
	return "", fmt.Errorf("%s: %d of its kind stand beside it already; mage clean removes them", path, asideLimit)
}
