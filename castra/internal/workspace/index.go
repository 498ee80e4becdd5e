package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"castra.example/castra/castra/internal/host"
)

// indexed is the file under <home>/index that tells of one workspace that lies
// elsewhere. Its name is a hash of Root.
type indexed struct {
	Schema int    `json:"schema_version"`
	Root   string `json:"root"`
	ID     string `json:"id"`
	file   string
}

func indexDir(home string) string { return filepath.Join(home, "index") }

func indexFile(home, root string) string {
	return filepath.Join(indexDir(home), hash(root)+".json")
}

// Register enters a workspace that does not lie under home into the index, by
// which commands without its castra.toml find it. Where it is entered already
// nothing is written.
func Register(home string, w *Workspace) error {
	if home == "" || filepath.Dir(w.Root) == projects(home) {
		return nil
	}
	if err := os.MkdirAll(indexDir(home), 0o700); err != nil {
		return fmt.Errorf("index of workspaces: %w", err)
	}
	unlock, err := lockIndex(home) // or a Heal that had found the workspace gone would remove what we see
	if err != nil {
		return err
	}
	defer unlock()
	file := indexFile(home, w.Root)
	if e, err := readIndexed(file); newer(file) || err == nil && e.Root == w.Root && e.ID == w.ID {
		return nil
	}
	if err := WriteJSON(file, indexed{Schema: schemaVersion, Root: w.Root, ID: w.ID}); err != nil {
		return fmt.Errorf("index of workspaces: %w", err)
	}
	return nil
}

// indexLockWait is long for what is done under the lock: one small file
// written, some removed.
const indexLockWait = 10 * time.Second

// lockIndex makes this process the only writer of the index: of several
// workspaces, whose locks are not one another's, more than one may want to.
func lockIndex(home string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), indexLockWait)
	defer cancel()
	l := flock.New(filepath.Join(home, "index.lock"), lockFlags, flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, lockPoll); err != nil {
		return nil, fmt.Errorf("lock the index of workspaces %s: %w", indexDir(home), err)
	}
	return func() { _ = l.Unlock() }, nil
}

// Stale lists the files of the index that Heal would remove, by their whole
// paths.
func Stale(home string) (items []Item, err error) {
	stale, _, err := surveyIndex(home)
	half, halfErr := stagedIndex(home)
	for _, file := range append(stale, half...) {
		if st, err := os.Lstat(file); err == nil {
			items = append(items, indexItem(file, st))
		}
	}
	return items, errors.Join(err, halfErr)
}

func indexItem(file string, st fs.FileInfo) Item { return Item{file, "record", host.DiskUsage(st)} }

// Heal brings the index up to date: a workspace that was moved while it runs
// VMs is entered where it is now, and what tells of one that is gone, or is
// damaged, goes. It gives what went, by whole paths. What a later Castra wrote
// stays.
func Heal(home string) (gone []Item, err error) {
	stale, moved, err := surveyIndex(home)
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, w := range moved {
		faults = append(faults, Register(home, w))
	}
	gone, err = removeIndexed(home, stale)
	return gone, errors.Join(append(faults, err)...)
}

// surveyIndex finds which files tell of nothing, and the workspaces that are
// elsewhere by now.
func surveyIndex(home string) (stale []string, moved []*Workspace, err error) {
	if home == "" {
		return nil, nil, nil
	}
	files, err := indexFiles(home)
	if err != nil {
		return nil, nil, err
	}
	l := listing{seen: map[host.FileID]bool{}}
	var lost []indexed
	for _, file := range files {
		if st, err := os.Lstat(file); err == nil && !removable("record", st) {
			continue
		}
		switch e, err := readIndexed(file); {
		case newer(file), errors.Is(err, fs.ErrPermission):
		case err != nil:
			stale = append(stale, file)
		case e.present():
			l.add(e.Root, e.ID, true)
		default:
			lost = append(lost, e)
		}
	}
	for _, e := range lost {
		if root := e.movedTo(l.whereQEMURuns()); root != "" {
			moved = append(moved, &Workspace{Layout{root}, e.ID})
			l.add(root, e.ID, true)
		}
		stale = append(stale, e.file)
	}
	return stale, moved, nil
}

// stagedIndex lists the files of the index that a killed command had not put in
// place.
func stagedIndex(home string) ([]string, error) {
	if home == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(indexDir(home))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("index of workspaces: %w", err)
	}
	var half []string
	for _, e := range entries {
		if e.Type().IsRegular() && staged.MatchString(e.Name()) {
			half = append(half, filepath.Join(indexDir(home), e.Name()))
		}
	}
	return half, nil
}

// removeIndexed removes files of the index, and those that a killed command had
// not put in place.
func removeIndexed(home string, files []string) (gone []Item, err error) {
	half, err := stagedIndex(home)
	if err != nil || len(files)+len(half) == 0 {
		return nil, err
	}
	unlock, err := lockIndex(home)
	if err != nil {
		return nil, err
	}
	defer unlock()
	top, err := os.OpenRoot(home)
	if err != nil {
		return nil, fmt.Errorf("index of workspaces: %w", err)
	}
	defer top.Close()
	dir, err := host.OpenBelow(top, filepath.Base(indexDir(home)))
	if err != nil {
		return nil, fmt.Errorf("index of workspaces: %w", err)
	}
	defer dir.Close()
	var faults []error
	for _, file := range append(files, half...) {
		if e, err := readIndexed(file); err == nil && e.present() { // made again since it was found gone
			continue
		}
		name := filepath.Base(file)
		st, err := dir.Lstat(name)
		if err != nil || !removable("record", st) {
			continue // gone, or another's
		}
		switch err := dir.Remove(name); {
		case err == nil:
			gone = append(gone, indexItem(file, st))
		case !errors.Is(err, fs.ErrNotExist):
			faults = append(faults, fmt.Errorf("index of workspaces: %w", err))
		}
	}
	return gone, errors.Join(faults...)
}

// present tells that the workspace is where the entry says, as far as can be
// seen: one that cannot be looked at counts.
func (e indexed) present() bool {
	w, err := Open(e.Root)
	if err != nil {
		return !gone(err)
	}
	return w.ID == e.ID
}

// movedTo finds the workspace among those that run; "" where it is not.
func (e indexed) movedTo(running []*Workspace) string {
	for _, w := range running {
		if w.ID == e.ID {
			return w.Root
		}
	}
	return ""
}

// indexFiles lists the files of the index, sorted.
func indexFiles(home string) ([]string, error) {
	entries, err := os.ReadDir(indexDir(home))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("index of workspaces: %w", err)
	}
	var files []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") && !litter(e.Name()) {
			files = append(files, filepath.Join(indexDir(home), e.Name()))
		}
	}
	return files, nil
}

// readIndex reads the index. A damaged file in it tells of nothing.
func readIndex(home string) ([]indexed, error) {
	files, err := indexFiles(home)
	var all []indexed
	for _, file := range files {
		if e, err := readIndexed(file); err == nil {
			all = append(all, e)
		}
	}
	return all, err
}

func readIndexed(file string) (indexed, error) {
	e := indexed{file: file}
	if err := loadRecord(file, &e, &e.Schema); err != nil {
		return e, err
	}
	if !filepath.IsAbs(e.Root) || filepath.Base(file) != hash(e.Root)+".json" || !validID.MatchString(e.ID) {
		return e, &RecordError{Path: file, Err: errors.New("it does not tell of a workspace")}
	}
	return e, nil
}
