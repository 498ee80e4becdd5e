package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

const (
	slugLength = 24
	hashLength = 12
)

// ID names the workspace of the project called name whose castra.toml lies in
// dir: a slug of the name for people, a hash of dir so that two checkouts
// never share one. Dir must have its symlinks resolved.
func ID(name, dir string) string {
	return slug(name) + "-" + hash(dir)
}

func hash(dir string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(dir)))
	return hex.EncodeToString(sum[:])[:hashLength]
}

// LocalName is where a project keeps its state when it keeps it beside its
// castra.toml.
const LocalName = ".castra"

// ByDir opens the workspace of the castra.toml in dir without reading that
// file: the one beside it, or the one under home whatever name the project had
// when it was made. It fails where there is none, or more than one.
func ByDir(home, dir string) (*Workspace, error) {
	if w, err := Open(filepath.Join(dir, LocalName)); err == nil {
		return w, nil
	}
	return UnderHome(home, dir)
}

// UnderHome opens the workspace under home that was made for the castra.toml
// in dir, whatever name the project had then.
func UnderHome(home, dir string) (*Workspace, error) {
	found, err := filepath.Glob(filepath.Join(DefaultRoot(home, "*-"+hash(dir)), markerName))
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("workspace of %s under %s: %d found: %w", dir, home, len(found), fs.ErrNotExist)
	}
	return Open(filepath.Dir(found[0]))
}

// slug keeps letters, digits and single dashes of name, in lower case.
func slug(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == slugLength {
			break
		}
	}
	if s := strings.Trim(b.String(), "-"); s != "" {
		return s
	}
	return "project"
}

// DefaultRoot is where the workspace called id lives under CASTRA_HOME.
func DefaultRoot(home, id string) string { return filepath.Join(home, "projects", id) }
