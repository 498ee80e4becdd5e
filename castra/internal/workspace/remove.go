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
	Path  string // below the root; of the index, the whole path
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

// OpenRoot opens the root for removing in it, and proves once more that it is this
// workspace: another directory may have its path by now. All that is removed is
// removed through what it gives, by names that lead through no symlink.
func (w *Workspace) OpenRoot() (*os.Root, error) {
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	st, err := root.Stat(".")
	if err == nil && !ownedByUs(st) {
		err = errors.New("it belongs to another user, so it is left")
	}
	if err == nil {
		var m marker
		if m, err = markerIn(root, w.Root); err == nil && m.ID != w.ID {
			err = fmt.Errorf("it is the workspace %s by now, so it is left", m.ID)
		}
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	return root, nil
}

// below opens one of the root's directories; nil without an error where there
// is none, or what has its name is no directory of ours.
func below(root *os.Root, dir string) (*os.Root, error) {
	if dir == "." {
		return root.OpenRoot(".")
	}
	d, err := host.OpenBelow(root, dir)
	if err != nil {
		if st, statErr := root.Lstat(dir); statErr != nil || !st.IsDir() {
			return nil, nil //nolint:nilerr // it is not there to look into
		}
		return nil, err
	}
	if st, err := d.Stat("."); err != nil || !ownedByUs(st) {
		d.Close()
		return nil, err
	}
	return d, nil
}

// readDir lists a directory of the root; what is none, or a symlink to one, is
// empty.
func readDir(root *os.Root, dir string) ([]fs.DirEntry, error) {
	d, err := below(root, dir)
	if d == nil {
		return nil, err
	}
	defer d.Close()
	return fs.ReadDir(d.FS(), ".")
}

// Removable lists what Clean would remove, sorted by path. Pidfiles are not
// among it: only who can lock one may remove it. Neither is anything that has
// another file system mounted on it or below, nor what is another user's.
func (w *Workspace) Removable(o RemoveOptions) ([]Item, error) {
	root, err := w.OpenRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	mounts := host.MountPoints()
	var items []Item
	for _, dir := range []string{imagesName, overlaysName, logsName, bootstrapName, handshakesName, metadataName, "."} {
		entries, err := readDir(root, dir)
		if err != nil {
			return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
		}
		for _, e := range entries {
			item := Item{Path: path.Join(dir, e.Name()), Kind: kindOf(dir, e.Name())}
			if item.Kind == "" || o.keeps(item.Kind) || w.mounted(item.Path, mounts) {
				continue
			}
			if st, err := root.Lstat(item.Path); err != nil || !removable(item.Kind, st) {
				continue
			}
			item.Bytes = host.TreeUsage(root.FS(), item.Path)
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Path, b.Path) })
	return items, nil
}

// kindOf is the kind of what has this name; "" where the name is none of
// Castra's.
func kindOf(dir, name string) string {
	damaged, _, aside := strings.Cut(name, asideInfix)
	switch {
	case kinds[dir] != "":
		return kinds[dir]
	case dir == metadataName && (name == sessionName || aside && (damaged == sessionName || damaged == recordName || strings.HasSuffix(damaged, keySuffix))):
		return "record"
	case dir == "." && strings.HasSuffix(name, monitorSuffix):
		return "socket"
	default:
		return ""
	}
}

// removable tells that what has a name of Castra's can be what Castra made: it
// is this user's, a socket is one, and a record is no directory.
func removable(kind string, st fs.FileInfo) bool {
	switch {
	case !ownedByUs(st):
		return false
	case kind == "socket":
		return st.Mode().Type() == fs.ModeSocket
	case kind == "record":
		return !st.IsDir()
	case kind == "staged":
		return st.Mode().IsRegular()
	default:
		return true
	}
}

// mounted tells that what is at a path below the root is not all of the root's
// own file system: something is mounted there, below it, or on a directory that
// leads to it.
func (w *Workspace) mounted(at string, mounts []string) bool {
	root := w.Root
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real
	}
	path := filepath.Join(root, at)
	within := func(path, dir string) bool { return strings.HasPrefix(path, dir+string(filepath.Separator)) }
	return slices.ContainsFunc(mounts, func(m string) bool {
		return m == path || within(m, path) || within(m, root) && within(path, m)
	})
}

// Clean removes items; removed is called for each that is gone. A symlink is
// removed and what it points at is left. All failures are joined.
func (w *Workspace) Clean(items []Item, removed func(Item)) error {
	root, err := w.OpenRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	mounts := host.MountPoints()
	var faults []error
	for _, item := range items {
		err := errNotOurs
		if kind := kindOf(path.Dir(item.Path), path.Base(item.Path)); kind != "" {
			err = w.remove(root, item.Path, kind, mounts)
		}
		switch {
		case err == nil:
			removed(item)
		case !errors.Is(err, fs.ErrNotExist):
			faults = append(faults, fmt.Errorf("remove %s: %w", w.join(item.Path), err))
		}
	}
	return errors.Join(faults...)
}

var errNotOurs = errors.New("it is none of Castra's, so it is left")

// remove removes what is at a path below the root, if it still is of a kind
// that can be Castra's.
func (w *Workspace) remove(root *os.Root, at, kind string, mounts []string) error {
	if w.mounted(at, mounts) {
		return errors.New("a file system is mounted there, so it is left")
	}
	d, err := below(root, path.Dir(at))
	if err != nil {
		return err
	}
	if d == nil {
		return fs.ErrNotExist
	}
	defer d.Close()
	name := path.Base(at)
	st, err := d.Lstat(name)
	if err != nil {
		return err
	}
	switch {
	case !removable(kind, st):
		return errors.New("it is another file by now, so it is left")
	case st.IsDir():
		return d.RemoveAll(name)
	default:
		return d.Remove(name)
	}
}

// RemoveMade removes the file at file if it still is the one with this
// identity, and tells how many bytes on disk that gave back. A file that is
// gone is no error; another file in its place is left and is one.
func RemoveMade(file string, id host.FileID) (int64, error) {
	freed, err := removeMade(file, id)
	if err != nil {
		return 0, fmt.Errorf("remove %s: %w", file, err)
	}
	return freed, nil
}

func removeMade(file string, id host.FileID) (int64, error) {
	root, err := os.OpenRoot(filepath.Dir(file))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close()
	name := filepath.Base(file)
	st, there, err := identify(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if there != id {
		return 0, errors.New("it is not the file Castra made there, so it is left")
	}
	if err := root.Remove(name); err != nil {
		return 0, err
	}
	return host.DiskUsage(st), nil
}

// Identify reads the identity of the file at a path, and follows no symlink.
func Identify(file string) (host.FileID, error) {
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return host.FileID{}, err
	}
	defer root.Close()
	_, id, err := identify(root, filepath.Base(file))
	return id, err
}

// identify tells of a file in root. Of what is no regular file the identity is
// what a stat tells.
func identify(root *os.Root, name string) (fs.FileInfo, host.FileID, error) {
	st, err := root.Lstat(name)
	if err != nil {
		return nil, host.FileID{}, err
	}
	if !st.Mode().IsRegular() {
		return st, host.IDOfInfo(st), nil
	}
	f, err := host.OpenRegular(root, name)
	if err != nil {
		return nil, host.FileID{}, err
	}
	defer f.Close()
	id, err := host.IDOf(f)
	return st, id, err
}

// RemoveOwn removes a file that Castra gives this name itself, directly in the
// workspace or one of its directories. One that is gone is no error.
func (w *Workspace) RemoveOwn(file string) error {
	err := w.removeOwn(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", file, err)
	}
	return nil
}

func (w *Workspace) removeOwn(file string) error {
	rel, err := filepath.Rel(w.Root, file)
	if err != nil {
		return err
	}
	if dir := filepath.Dir(rel); !filepath.IsLocal(rel) || filepath.Base(dir) != dir {
		return errNotOurs
	}
	root, err := w.OpenRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	d, err := below(root, filepath.Dir(rel))
	if d == nil {
		return err
	}
	defer d.Close()
	return d.Remove(filepath.Base(rel))
}
