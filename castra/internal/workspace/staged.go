package workspace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"

	"castra.example/castra/castra/internal/host"
)

// staged matches the names under which files are written before they get their
// own: of renameio, and of CreateFile.
var staged = regexp.MustCompile(`^\..+[0-9]$`)

// RemoveStaged removes the files that a killed command had not put in place
// yet, and gives what went. They may hold a private key, so they are not left
// for clean. Only the holder of the lock may call it: to others they may be
// somebody's work.
func (w *Workspace) RemoveStaged() ([]Item, error) {
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	defer root.Close()
	var gone []Item
	var faults []error
	for _, dir := range []string{".", overlaysName, metadataName, bootstrapName, logsName} {
		entries, err := readDir(root, dir)
		faults = append(faults, err)
		for _, e := range entries {
			if !e.Type().IsRegular() || !staged.MatchString(e.Name()) || dir == "." && !strings.HasPrefix(e.Name(), stagedMarker) {
				continue
			}
			item := Item{path.Join(dir, e.Name()), "staged", host.TreeUsage(root.FS(), path.Join(dir, e.Name()))}
			if err := root.Remove(item.Path); err != nil {
				faults = append(faults, fmt.Errorf("remove %s: %w", w.join(item.Path), err))
				continue
			}
			gone = append(gone, item)
		}
	}
	return gone, errors.Join(faults...)
}
