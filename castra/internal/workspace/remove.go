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
	Kind  string // image, overlay, log, bootstrap, record, socket, legacy, staged
	Bytes int64  // on disk
}

// kinds of what lies in the directories that hold nothing but cache.
var kinds = map[string]string{
	imagesName: "image", overlaysName: "overlay", logsName: "log", bootstrapName: "bootstrap", handshakesName: "legacy",
}

// RemoveOptions say what Removable leaves out. The zero value leaves out
// nothing.
type RemoveOptions struct {
	KeepLogs bool
	// KeepOverlays keeps the session too: it tells whose the overlays are.
	KeepOverlays bool
}

func (o RemoveOptions) keeps(kind string) bool {
	return o.KeepLogs && kind == "log" || o.KeepOverlays && (kind == "overlay" || kind == "record")
}

// Removable lists what Clean would remove, sorted by path. Pidfiles are not
// among it: only who can lock one may remove it. Neither is anything that has
// another file system mounted on it or below.
func (w *Workspace) Removable(o RemoveOptions) ([]Item, error) {
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	defer root.Close()
	names, err := removableNames(root)
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	mounts := host.MountPoints()
	var items []Item
	for name, kind := range names {
		if !o.keeps(kind) && !mounted(w.join(name), mounts) {
			items = append(items, Item{name, kind, host.TreeUsage(root.FS(), name)})
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Path, b.Path) })
	return items, nil
}

// removableNames gives the kind of each name below root that is Castra's to
// remove.
func removableNames(root *os.Root) (map[string]string, error) {
	names := map[string]string{}
	for dir, kind := range kinds {
		entries, err := readDir(root, dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			names[path.Join(dir, e.Name())] = kind
		}
	}
	records, err := readDir(root, metadataName)
	if err != nil {
		return nil, err
	}
	for _, e := range records {
		if e.Name() == sessionName || strings.HasPrefix(e.Name(), sessionName+asideInfix) || strings.HasPrefix(e.Name(), recordName+asideInfix) {
			names[path.Join(metadataName, e.Name())] = "record"
		}
	}
	top, err := readDir(root, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range top {
		if strings.HasSuffix(e.Name(), monitorSuffix) && e.Type() == fs.ModeSocket {
			names[e.Name()] = "socket"
		}
	}
	return names, nil
}

// readDir lists a directory; what is none, or a symlink to one, is empty.
func readDir(root *os.Root, dir string) ([]fs.DirEntry, error) {
	if st, err := root.Lstat(dir); err != nil || !st.IsDir() {
		return nil, nil //nolint:nilerr // it is not there to list
	}
	return fs.ReadDir(root.FS(), dir)
}

// mounted tells that one of the mount points is path or lies below it.
func mounted(path string, mounts []string) bool {
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(real, filepath.Base(path))
	}
	return slices.ContainsFunc(mounts, func(m string) bool {
		return m == path || strings.HasPrefix(m, path+string(filepath.Separator))
	})
}

// Clean removes items; removed is called for each that is gone. A symlink is
// removed and what it points at is left. All failures are joined.
func (w *Workspace) Clean(items []Item, removed func(Item)) error {
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	defer root.Close()
	mounts := host.MountPoints()
	var faults []error
	for _, item := range items {
		if mounted(w.join(item.Path), mounts) {
			faults = append(faults, fmt.Errorf("remove %s: a file system is mounted there, so it is left", w.join(item.Path)))
			continue
		}
		if err := root.RemoveAll(item.Path); err != nil {
			faults = append(faults, fmt.Errorf("remove %s: %w", w.join(item.Path), err))
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
