package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// magic is how a marker file proves that a directory is a workspace.
const magic = "castra workspace"

// Workspace is one state root that is known to be Castra's.
type Workspace struct {
	Layout
	// ID is slug and hash of the project that made it.
	ID string
}

type marker struct {
	Magic string `json:"magic"`
	ID    string `json:"id"`
}

// PreflightError says: the state root cannot be made or must not be used.
type PreflightError struct {
	Root string
	Err  error
	Help string
}

func (e *PreflightError) Error() string { return fmt.Sprintf("state root %s: %v", e.Root, e.Err) }
func (e *PreflightError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *PreflightError) Hint() string { return e.Help }

// Open takes an existing workspace; fs.ErrNotExist is in the error where there
// is none. Nothing is written.
func Open(root string) (*Workspace, error) {
	m, err := readMarker(root)
	if err != nil {
		return nil, err
	}
	return &Workspace{Layout{root}, m.ID}, nil
}

// Create opens the workspace at root, and makes it with its logs and images
// directories where it does not exist yet. It refuses with a *PreflightError
// a directory that holds other files, belongs to someone else, or can be
// written by others.
func Create(root, id string) (*Workspace, error) {
	if !filepath.IsAbs(root) {
		return nil, &PreflightError{root, errors.New("not an absolute path"), "set [project] state_dir, or CASTRA_HOME to an absolute path"}
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, &PreflightError{root, err, "choose a directory you may write to: [project] state_dir, or CASTRA_HOME"}
	}
	if err := checkOwner(root); err != nil {
		return nil, err
	}
	m, err := readMarker(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if m, err = claim(root, id); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	w := &Workspace{Layout{root}, m.ID}
	for _, dir := range []string{w.Logs(), w.Images()} {
		if err := w.MakeDir(dir); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// MakeDir makes a directory of the workspace. A symlink in its place is
// refused: what is written there would leave the workspace.
func (w *Workspace) MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &PreflightError{w.Root, err, "check the permissions and the free space of the state root"}
	}
	if st, err := os.Lstat(dir); err != nil || !st.IsDir() {
		return &PreflightError{w.Root, fmt.Errorf("%s is not a directory", dir), "move it away; Castra makes its own"}
	}
	return nil
}

// checkOwner refuses a root that another user could change under our hands.
func checkOwner(root string) error {
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return &PreflightError{root, err, "check the path of the state root"}
	}
	if uid := os.Getuid(); int(st.Uid) != uid {
		return &PreflightError{root, fmt.Errorf("it belongs to uid %d, and you are uid %d", st.Uid, uid),
			fmt.Sprintf("run as its owner, choose another state_dir, or hand it over: sudo chown -R %d %s", uid, root)}
	}
	if st.Mode&0o022 != 0 {
		return &PreflightError{root, fmt.Errorf("other users can write to it (mode %04o)", st.Mode&0o7777),
			"chmod go-w " + root}
	}
	return nil
}

// ownedByUs tells that the file is this user's.
func ownedByUs(st fs.FileInfo) bool {
	owner, known := st.Sys().(*syscall.Stat_t)
	return known && int(owner.Uid) == os.Getuid()
}

// plain tells that a file is a regular one of this user's that has one name: no
// other file is changed through it.
func plain(st fs.FileInfo) bool {
	sys, known := st.Sys().(*syscall.Stat_t)
	return known && st.Mode().IsRegular() && ownedByUs(st) && sys.Nlink == 1
}

func readMarker(root string) (marker, error) {
	b, err := readRecord(filepath.Join(root, markerName))
	return parseMarker(b, err, root)
}

// markerIn is readMarker of a directory that is open already.
func markerIn(root *os.Root, path string) (marker, error) {
	f, err := host.OpenRegular(root, markerName)
	if err != nil {
		return marker{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, recordLimit))
	return parseMarker(b, err, path)
}

func parseMarker(b []byte, err error, root string) (marker, error) {
	var m marker
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return m, err
		}
		return m, &PreflightError{root, err, "check the permissions of the state root"}
	}
	if err := json.Unmarshal(b, &m); err != nil || m.Magic != magic || !validID.MatchString(m.ID) {
		return m, &PreflightError{root, fmt.Errorf("%s is not a marker of Castra", markerName),
			"choose another state_dir, or remove that file if it is yours"}
	}
	return m, nil
}

// claim puts the marker into a directory that is empty but for git's own
// small files. Of several that claim it at once, the first gives it its ID.
func claim(root, id string) (marker, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return marker{}, &PreflightError{root, err, "check the permissions of the state root"}
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == ".gitignore", name == ".gitkeep", strings.HasPrefix(name, stagedMarker):
		default:
			if m, err := readMarker(root); err == nil { // claimed while we looked
				return m, nil
			}
			return marker{}, &PreflightError{root, fmt.Errorf("it holds %s and is no workspace of Castra", name),
				"choose an empty or new directory as state_dir"}
		}
	}
	b, err := json.Marshal(marker{magic, id})
	if err == nil {
		err = CreateFile(filepath.Join(root, markerName), stagedMarker, append(b, '\n'))
	}
	if err != nil {
		if m, taken := readMarker(root); taken == nil { // who claimed it first may have removed what we had staged
			return m, nil
		}
		return marker{}, &PreflightError{root, err, "check the permissions and the free space of the state root"}
	}
	return readMarker(root)
}

// stagedMarker is how the name of a marker begins that is not in place yet.
const stagedMarker = markerName + "-"
