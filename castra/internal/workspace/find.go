package workspace

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// prefixLength is how many characters the beginning of an ID has at least
// where it stands for the whole.
const prefixLength = 4

// UnknownWorkspaceError says: no workspace is called that.
type UnknownWorkspaceError struct {
	Key   string
	Known []string // IDs, sorted
}

func (e *UnknownWorkspaceError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("workspace %q: there is none on this computer", e.Key)
	}
	return fmt.Sprintf("workspace %q: there is none of that name; known: %s", e.Key, strings.Join(e.Known, ", "))
}

// Hint says what to do next.
func (e *UnknownWorkspaceError) Hint() string {
	return fmt.Sprintf("give an ID, %d characters or more from its beginning, or the path of a state root; mage status -all lists them", prefixLength)
}

// AmbiguousWorkspaceError says: several workspaces are called that.
type AmbiguousWorkspaceError struct {
	Key   string
	Roots []string // sorted by ID and root
}

func (e *AmbiguousWorkspaceError) Error() string {
	return fmt.Sprintf("workspace %q: it may be any of %s", e.Key, strings.Join(e.Roots, ", "))
}

// Hint says what to do next.
func (e *AmbiguousWorkspaceError) Hint() string { return "give the path of the one that is meant" }

// Find opens the workspace that key names: by its ID, its root's absolute
// path, or the beginning of its ID. Errors are *UnknownWorkspaceError and
// *AmbiguousWorkspaceError, and a *PreflightError where what is there cannot
// be used. It writes nothing.
func Find(home, key string) (*Workspace, error) {
	if filepath.IsAbs(key) {
		w, err := Open(filepath.Clean(key))
		if err == nil || !gone(err) {
			return w, err
		}
	}
	all, err := All(home)
	named := func(match func(id string) bool) (found []Entry) {
		for _, e := range all {
			if match(e.ID) {
				found = append(found, e)
			}
		}
		return found
	}
	found := named(func(id string) bool { return id == key })
	if len(found) == 0 && len(key) >= prefixLength {
		found = named(func(id string) bool { return strings.HasPrefix(id, key) })
	}
	switch {
	case len(found) == 1:
		return found[0].open()
	case len(found) > 1:
		e := &AmbiguousWorkspaceError{Key: key}
		for _, f := range found {
			e.Roots = append(e.Roots, f.Root)
		}
		return nil, e
	case err != nil:
		return nil, err // the one that is meant may be among what could not be listed
	}
	unknown := &UnknownWorkspaceError{Key: key}
	for _, e := range all {
		unknown.Known = append(unknown.Known, e.ID)
	}
	unknown.Known = slices.Compact(unknown.Known)
	return nil, unknown
}

func (e Entry) open() (*Workspace, error) {
	w, err := Open(e.Root)
	if err != nil && e.Fault != nil {
		return nil, &PreflightError{e.Root, e.Fault, "it cannot be used as a workspace; move it away, or mend it"}
	}
	return w, err
}

// ByConfigDir opens the workspace that was made for the castra.toml in one of
// dirs, without reading that file: the one whose record says so, the one beside
// it, or the one under home whatever name the project had when it was made. The
// first directory that has any decides; of several it is the one that was used
// last. Fs.ErrNotExist is in the error where there is none. Dirs must have their
// symlinks resolved. The workspaces are listed once, for however many dirs.
func ByConfigDir(home string, dirs ...string) (*Workspace, error) {
	all, listErr := All(home)
	for _, dir := range dirs {
		if found := madeFor(all, dir); len(found) > 0 {
			return Open(slices.MaxFunc(found, func(a, b Entry) int { return compareUse(a, b, dir) }).Root)
		}
		for _, e := range all { // one without a record that can be read
			if !e.Elsewhere && strings.HasSuffix(filepath.Base(e.Root), "-"+hash(dir)) {
				if w, err := Open(e.Root); err == nil {
					return w, nil
				}
			}
		}
	}
	if listErr != nil {
		return nil, fmt.Errorf("workspace of %s: %w", strings.Join(dirs, ", "), listErr)
	}
	return nil, fmt.Errorf("workspace of %s: %w", strings.Join(dirs, ", "), fs.ErrNotExist)
}

// madeFor are the workspaces of the castra.toml in dir: the one beside it, and
// those whose record says so.
func madeFor(all []Entry, dir string) (found []Entry) {
	if w, err := Open(filepath.Join(dir, LocalName)); err == nil {
		beside := Entry{Root: w.Root}
		if r, err := w.LoadRecord(); err == nil {
			beside.Record = *r
		}
		found = append(found, beside)
	}
	for _, e := range all {
		if e.Record.Config != "" && filepath.Dir(e.Record.Config) == dir {
			found = append(found, e)
		}
	}
	return found
}

// compareUse orders by when a workspace was used. The copy of a project carries
// its original's record: of two that are equal, the one inside dir comes last.
func compareUse(a, b Entry, dir string) int {
	if n := a.Record.Updated.Compare(b.Record.Updated); n != 0 {
		return n
	}
	project := Layout{dir}
	switch inA, inB := project.Contains(a.Root), project.Contains(b.Root); {
	case inA && !inB:
		return 1
	case inB && !inA:
		return -1
	}
	return 0
}
