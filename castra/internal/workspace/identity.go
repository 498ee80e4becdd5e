package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"regexp"
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

// validID is what ID can give, and what a marker may say.
var validID = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

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
func DefaultRoot(home, id string) string { return filepath.Join(projects(home), id) }

func projects(home string) string { return filepath.Join(home, "projects") }
