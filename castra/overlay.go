package castra

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

// discardOverlay removes the overlay on record, if it can be proved that Castra
// made it. One that a living QEMU has open is left: this workspace may be a
// copy of its own.
func (c *command) discardOverlay(vm string, r workspace.VM, why string) (int64, error) {
	path := recordedOverlay(c.ws, vm, r)
	there, err := workspace.Identify(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("overlay %s: %w", path, err)
	}
	if used, err := qemu.StillInUse(path); err != nil || used {
		return 0, errors.Join(&OverlayInUseError{path}, err)
	}
	if err := proveOverlay(c.ws, c.home, path, r, there); err != nil {
		return 0, &OverlayError{path, err}
	}
	freed, err := workspace.RemoveMade(path, there)
	if err == nil {
		c.events.Emit(event.OverlayDiscarded{VM: vm, Path: path, Bytes: freed, Reason: why})
	}
	return freed, err
}

// recordedOverlay is where the overlay of a VM is, also of one without a record.
func recordedOverlay(ws *workspace.Workspace, vm string, r workspace.VM) string {
	if r.Overlay.Path == "" {
		return ws.Overlay(ws.ID, vm)
	}
	return r.Overlay.Path
}

// OverlayError says: what stands in the place of a VM's overlay is left, since
// Castra may not have made it.
type OverlayError struct {
	Path string
	Err  error
}

func (e *OverlayError) Error() string { return fmt.Sprintf("overlay %s: %v", e.Path, e.Err) }
func (e *OverlayError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *OverlayError) Hint() string {
	return "move it away, or remove it if nothing of yours is in it; then the same command again"
}

var (
	errNotMade = errors.New("it is not the file Castra made there, so it is left")
	errNotYet  = errors.New("it was not made yet when Castra was killed, so it is left")
)

// proveOverlay is nil where the file that is at the path of an overlay is one
// that Castra made. In the directory that holds nothing but overlays that is any:
// its number is another one when the workspace was moved to another disk, or
// restored from a backup. Elsewhere it is the one on record, unless something
// else was written into it since; where the record does not tell, since the
// workspace was moved or the command killed, the file itself must show it.
func proveOverlay(ws *workspace.Workspace, home, path string, r workspace.VM, there host.FileID) error {
	if filepath.Dir(path) == ws.Overlays() {
		return nil
	}
	id := r.Overlay.ID
	if id.Born == 0 { // of a file system that does not tell, or an earlier Castra's
		there.Born = 0
	}
	if id != (host.FileID{}) && id != there {
		return errNotMade
	}
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errNotMade
	}
	if id == (host.FileID{}) && st.Size() == 0 {
		if r.BootID != host.BootID() || there.Born != 0 && there.Born < r.Launched.Add(-time.Second).UnixNano() {
			return errNotMade
		}
		return nil
	}
	backing, made, err := qemu.BackingOf(path)
	switch {
	case err != nil:
		return err
	case id == (host.FileID{}) && (!made || !ws.Contains(path)):
		return errNotYet
	case made && backing != r.Overlay.BaseImage && !strings.HasPrefix(backing, filepath.Join(home, "templates")+string(filepath.Separator)):
		return errNotMade
	default:
		return nil
	}
}
