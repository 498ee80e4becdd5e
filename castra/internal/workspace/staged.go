package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"castra.example/castra/castra/internal/host"
)

// staged matches the names under which files are written before they get their
// own: of renameio, and of CreateFile.
var staged = regexp.MustCompile(`^\..+[0-9]$`)

// Staged lists the files that a killed command had not put in place yet, or
// somebody's who is at work.
func (w *Workspace) Staged() ([]Item, error) {
	root, err := w.OpenRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return w.staged(root)
}

func (w *Workspace) staged(root *os.Root) ([]Item, error) {
	mounts := host.MountPoints()
	var items []Item
	var faults []error
	for _, dir := range []string{".", overlaysName, metadataName, bootstrapName, logsName} {
		entries, err := readDir(root, dir)
		faults = append(faults, err)
		for _, e := range entries {
			if !staged.MatchString(e.Name()) || dir == "." && !strings.HasPrefix(e.Name(), stagedMarker) {
				continue
			}
			item := Item{Path: path.Join(dir, e.Name()), Kind: "staged"}
			if st, err := root.Lstat(item.Path); err == nil && removable(item.Kind, st) && !w.mounted(item.Path, mounts) {
				item.Bytes = host.DiskUsage(st)
				items = append(items, item)
			}
		}
	}
	return items, errors.Join(faults...)
}

// RemoveStaged removes what Staged lists, and gives what went. It may hold a
// private key, so it is not left for clean. Only the holder of the lock may
// call it: to others it may be somebody's work.
func (w *Workspace) RemoveStaged() ([]Item, error) { return w.removeListed(w.staged) }

// removeListed removes what list gives, and tells what went.
func (w *Workspace) removeListed(list func(root *os.Root) ([]Item, error)) ([]Item, error) {
	root, err := w.OpenRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	items, err := list(root)
	faults := []error{err}
	mounts := host.MountPoints()
	var gone []Item
	for _, item := range items {
		err := w.remove(root, item.Path, item.Kind, mounts)
		switch {
		case err == nil:
			gone = append(gone, item)
		case !errors.Is(err, fs.ErrNotExist):
			faults = append(faults, fmt.Errorf("remove %s: %w", w.join(item.Path), err))
		}
	}
	return gone, errors.Join(faults...)
}
