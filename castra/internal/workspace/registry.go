package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// Entry is one place that is, or should be, a workspace.
type Entry struct {
	Root string
	// ID is that of the workspace; of a broken one the name that it has there.
	ID string
	// Record is zero where there is none.
	Record Record
	// Fault says in one line why the entry, or its record, cannot be used; nil
	// of a whole one. A workspace that was only just made has no record yet,
	// and that is no fault.
	Fault error
	// Elsewhere: it does not lie under CASTRA_HOME but in a state_dir.
	Elsewhere bool
}

// All lists every workspace under home and, by the index, elsewhere, sorted by
// ID and root. One that was moved while it runs VMs is listed where it is now.
// It reads only; what it could list stands beside an error.
func All(home string) ([]Entry, error) {
	if home == "" {
		return nil, nil
	}
	l := listing{seen: map[host.FileID]bool{}}
	children, err := os.ReadDir(projects(home))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("list workspaces: %w", err)
	}
	for _, child := range children {
		if !litter(child.Name()) {
			l.add(DefaultRoot(home, child.Name()), child.Name(), false)
		}
	}
	index, indexErr := readIndex(home)
	var lost []indexed
	for _, e := range index {
		if e.present() {
			l.add(e.Root, e.ID, true)
		} else {
			lost = append(lost, e)
		}
	}
	for _, e := range lost {
		if root := e.movedTo(l.whereQEMURuns()); root != "" {
			l.add(root, e.ID, true)
		}
	}
	slices.SortFunc(l.entries, func(a, b Entry) int {
		return strings.Compare(a.ID+"\x00"+a.Root, b.ID+"\x00"+b.Root)
	})
	return l.entries, errors.Join(err, indexErr)
}

// litter tells that a name is what an editor or a file manager leaves.
func litter(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp")
}

// listing gathers entries, each directory once by whatever paths it is reached.
type listing struct {
	entries []Entry
	seen    map[host.FileID]bool
	running []*Workspace // set once it has been looked for
}

func (l *listing) add(root, name string, elsewhere bool) {
	if st, err := os.Stat(root); err == nil {
		id := host.IDOfInfo(st)
		if l.seen[id] {
			return
		}
		l.seen[id] = true
	}
	e := Entry{Root: root, ID: name, Elsewhere: elsewhere}
	w, err := Open(root)
	if err != nil {
		if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) {
			return // removed since it was listed
		}
		e.Fault = openFault(root, err)
		l.entries = append(l.entries, e)
		return
	}
	e.ID = w.ID
	switch r, err := w.LoadRecord(); {
	case err == nil:
		e.Record = *r
	case !errors.Is(err, fs.ErrNotExist):
		e.Fault = err
	}
	l.entries = append(l.entries, e)
}

// openFault says in a few words why there is no workspace at root.
func openFault(root string, err error) error {
	st, statErr := os.Stat(root)
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return errors.New("a symlink to nothing")
	case errors.Is(statErr, fs.ErrPermission), errors.Is(err, fs.ErrPermission):
		return errors.New("permission denied")
	case statErr != nil:
		return statErr
	case !st.IsDir():
		return errors.New("not a directory")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if children, err := os.ReadDir(root); err == nil && len(children) == 0 {
		return errors.New("an empty directory")
	}
	return fmt.Errorf("no workspace: it has no %s", markerName)
}

// qemuPrefix is how the names of the processes begin whose working directory
// is a workspace.
const qemuPrefix = "qemu-system-"

// whereQEMURuns gives the workspaces that are the working directory of a QEMU
// and not listed yet: a directory keeps its processes when it is moved.
func (l *listing) whereQEMURuns() []*Workspace {
	if l.running == nil {
		l.running = []*Workspace{}
		for _, dir := range host.WorkingDirs(qemuPrefix) {
			if w, err := Open(dir); err == nil {
				l.running = append(l.running, w)
			}
		}
		slices.SortFunc(l.running, func(a, b *Workspace) int { return strings.Compare(a.Root, b.Root) })
	}
	return slices.DeleteFunc(slices.Clone(l.running), func(w *Workspace) bool {
		st, err := os.Stat(w.Root)
		return err != nil || l.seen[host.IDOfInfo(st)]
	})
}

// gone tells from the error of opening a workspace that it is not there, as
// opposed to one that cannot be looked at.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// UnderHome opens the workspace under home that was made for the castra.toml
// in dir, whatever name the project had then.
func UnderHome(home, dir string) (*Workspace, error) {
	entries, err := os.ReadDir(projects(home))
	if err != nil {
		return nil, fmt.Errorf("workspace of %s: %w", dir, err)
	}
	var found []string
	for _, e := range entries {
		root := DefaultRoot(home, e.Name())
		if _, err := os.Lstat(filepath.Join(root, markerName)); err == nil && strings.HasSuffix(e.Name(), "-"+hash(dir)) {
			found = append(found, root)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("workspace of %s under %s: %d found: %w", dir, home, len(found), fs.ErrNotExist)
	}
	return Open(found[0])
}
