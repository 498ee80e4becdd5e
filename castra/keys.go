package castra

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"castra.example/castra/castra/internal/seed"
	"castra.example/castra/castra/internal/workspace"
)

// workspaceKey makes the workspace's own SSH key on first use. The
// caller holds the lock.
func workspaceKey(ws *workspace.Workspace) error {
	return makeKey(ws, ws.Identity(), "castra "+ws.ID)
}

func makeKey(ws *workspace.Workspace, path, comment string) error {
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := seed.NewKey(comment)
	if err != nil {
		return err
	}
	if err := ws.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	return workspace.WriteFile(path, key.Private)
}

// hostKey is the SSH host key of p's guest: one for this run, or that of its
// role where a template may hold it.
func (u *upRun) hostKey(p vmPlan) (seed.Key, error) {
	if u.templates.refusal(p) != "" {
		key, known := u.hostKeys.Load(p.Name)
		if known {
			return key.(seed.Key), nil
		}
		made, err := seed.NewKey(p.Name)
		if err == nil {
			u.hostKeys.Store(p.Name, made)
		}
		return made, err
	}
	path := u.ws.HostKey(p.Role)
	if err := makeKey(u.ws, path, p.Role); err != nil {
		return seed.Key{}, err
	}
	return readKey(path)
}

// authorized is the key that the guest of p lets in.
func (u *upRun) authorized(p vmPlan) (seed.Key, error) {
	return readKey(p.identity)
}
