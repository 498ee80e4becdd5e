package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"castra.example/castra/castra/internal/host"
)

// Item is one entry of a workspace that clean may remove: a file, or a
// directory with all below it.
type Item struct {
	Path  string // below the root
	Kind  string // image, overlay, log, bootstrap, record, socket, legacy
	Bytes int64  // on disk
}

// kinds of what lies in the directories that hold nothing but cache.
var kinds = map[string]string{
	imagesName: "image", overlaysName: "overlay", logsName: "log", bootstrapName: "bootstrap", handshakesName: "legacy",
}

// Removable lists what Clean would remove, sorted by path. Pidfiles are not
// among it: only who can lock one may remove it.
func (w *Workspace) Removable() ([]Item, error) {
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	defer root.Close()
	var items []Item
	for dir, kind := range kinds {
		st, err := root.Lstat(dir)
		if err != nil || !st.IsDir() {
			continue
		}
		found, err := itemsIn(root, dir, kind)
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	names, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	for _, e := range names {
		if strings.HasSuffix(e.Name(), monitorSuffix) && e.Type() == fs.ModeSocket {
			items = append(items, Item{Path: e.Name(), Kind: "socket"})
		}
	}
	items = append(items, sessionItems(root)...)
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Path, b.Path) })
	return items, nil
}

func itemsIn(root *os.Root, dir, kind string) ([]Item, error) {
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", root.Name(), err)
	}
	var items []Item
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		items = append(items, Item{name, kind, usage(root, name)})
	}
	return items, nil
}

func sessionItems(root *os.Root) []Item {
	var items []Item
	entries, err := fs.ReadDir(root.FS(), metadataName)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.Name() == "session.json" || strings.HasPrefix(e.Name(), "session.json.corrupt-") {
			name := path.Join(metadataName, e.Name())
			items = append(items, Item{name, "record", usage(root, name)})
		}
	}
	return items
}

// usage adds up what a tree takes on disk. What cannot be read counts nothing.
func usage(root *os.Root, name string) int64 {
	var sum int64
	_ = fs.WalkDir(root.FS(), name, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			if info, err := d.Info(); err == nil {
				sum += host.DiskUsage(info)
			}
		}
		return nil
	})
	return sum
}

// Clean removes items; removed is called for each that is gone. A symlink is
// removed and what it points at is left. All failures are joined.
func (w *Workspace) Clean(items []Item, removed func(Item)) error {
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	defer root.Close()
	var faults []error
	for _, item := range items {
		if err := root.RemoveAll(item.Path); err != nil {
			faults = append(faults, fmt.Errorf("remove %s: %w", filepath.Join(w.Root, item.Path), err))
			continue
		}
		removed(item)
	}
	return errors.Join(faults...)
}

// RemoveMade removes the file at file if it still is the one with this
// identity, and tells how many bytes on disk that gave back. A file that is
// gone is no error; another file in its place is left and is one.
func RemoveMade(file string, id host.FileID) (int64, error) {
	root, err := os.OpenRoot(filepath.Dir(file))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("remove %s: %w", file, err)
	}
	defer root.Close()
	st, err := root.Lstat(filepath.Base(file))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("remove %s: %w", file, err)
	}
	if host.IDOfInfo(st) != id {
		return 0, fmt.Errorf("remove %s: it is not the file Castra made there, so it is left", file)
	}
	if err := root.Remove(filepath.Base(file)); err != nil {
		return 0, fmt.Errorf("remove %s: %w", file, err)
	}
	return host.DiskUsage(st), nil
}

// RemoveOwn removes a file that Castra gives this name itself, directly in the
// workspace or one of its directories. One that is gone is no error.
func (w *Workspace) RemoveOwn(file string) error {
	rel, err := filepath.Rel(w.Root, file)
	if err != nil {
		return fmt.Errorf("remove %s: %w", file, err)
	}
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return fmt.Errorf("remove %s: %w", file, err)
	}
	defer root.Close()
	if err := root.Remove(rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", file, err)
	}
	return nil
}
