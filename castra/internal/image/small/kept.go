package small

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/gofrs/flock"
)

// Kept is one directory that builds under home have left: a guest, or what a killed build had made of one.
type Kept struct {
	Name    string // below Dir's parent
	Dir     string // absolute
	Disk    string // "" where there is none
	Current bool   // it is the guest that LookupFor finds for its architecture
}

// BusyError says: a build is going on, and may be using what should be removed.
type BusyError struct{ Lock string }

func (e *BusyError) Error() string {
	return "the small guest is being built (" + e.Lock + " is locked)"
}

// Hint says what to do next.
func (e *BusyError) Hint() string { return "try again when the build has ended" }

// Names of guests, of the directories builds work in, and all that a guest holds.
var (
	guestName  = regexp.MustCompile(`^` + guestPrefix + `(arm64-)?[0-9a-f]{12}$`)
	workName   = regexp.MustCompile(`^` + workPrefix + `[0-9]+$`)
	guestNames = []string{diskName, kernelName, initrdName, manifestName}
)

// All lists what builds have left under home, sorted by name.
func All(home string) ([]Kept, error) {
	root, err := openGuests(home)
	if root == nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list guests: %w", err)
	}
	var all []Kept
	for _, e := range entries {
		if !ours(root, e.Name()) {
			continue
		}
		k := Kept{Name: e.Name(), Dir: filepath.Join(root.Name(), e.Name())}
		if _, err := root.Lstat(filepath.Join(k.Name, diskName)); err == nil {
			k.Disk = filepath.Join(k.Dir, diskName)
		}
		k.Current = slices.ContainsFunc(targets, func(t target) bool {
			g, complete := LookupFor(home, t.arch)
			return complete && k.Dir == g.Dir
		})
		all = append(all, k)
	}
	return all, nil
}

// Remove removes what All has listed under a name; what is gone is no error. It refuses with a *BusyError while a build runs.
func Remove(home, name string) (err error) {
	root, err := openGuests(home)
	if root == nil {
		return err
	}
	defer root.Close()
	l := flock.New(filepath.Join(root.Name(), lockName), flock.SetPermissions(0o644))
	got, err := l.TryLock()
	if err != nil {
		return fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	if !got {
		return &BusyError{l.Path()}
	}
	defer l.Unlock()
	if _, err := root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !ours(root, name) {
		return fmt.Errorf("remove %s: it is no guest that Castra built, so it is left", filepath.Join(root.Name(), name))
	}
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("remove %s: %w", filepath.Join(root.Name(), name), err)
	}
	return nil
}

// openGuests opens the directory of guests; nil without an error where there is none.
func openGuests(home string) (*os.Root, error) {
	if home == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(filepath.Join(home, guestsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("guests: %w", err)
	}
	return root, nil
}

// ours tells that name in root is a directory that a build made: by its name, and a guest also by its holding nothing else.
func ours(root *os.Root, name string) bool {
	if st, err := root.Lstat(name); err != nil || !st.IsDir() {
		return false
	}
	if workName.MatchString(name) {
		return true // what a build has in it depends on when it was killed; the next build takes it for a leftover too
	}
	entries, err := fs.ReadDir(root.FS(), name)
	return err == nil && guestName.MatchString(name) &&
		!slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !slices.Contains(guestNames, e.Name()) })
}
