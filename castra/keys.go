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
func (p *Project) workspaceKey(ws *workspace.Workspace) error {
	return p.makeKey(ws, ws.Identity(), "castra "+p.id)
}

// makeKey makes a key of the workspace where there is none. Workspaces beside the
// project's own (Options.StateDir) get the keys that are kept for all of these, or no
// template of one could be used in the next.
func (p *Project) makeKey(ws *workspace.Workspace, path, comment string) error {
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := ws.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	pem, err := newKey(comment)
	if err == nil && p.keys != "" {
		pem, err = keep(filepath.Join(p.keys, filepath.Base(path)), pem)
	}
	if err != nil {
		return err
	}
	return workspace.WriteFile(path, pem)
}

func newKey(comment string) ([]byte, error) {
	key, err := seed.NewKey(comment)
	return key.Private, err
}

// keep files a key where there is none yet, and gives the one that is there: of
// several processes that make one at once, the first is right.
func keep(path string, pem []byte) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	staged, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return nil, err
	}
	_, err = staged.Write(pem)
	err = errors.Join(err, staged.Close())
	if err == nil {
		err = os.Link(staged.Name(), path)
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err := errors.Join(err, os.Remove(staged.Name())); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
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
	if err := u.makeKey(u.ws, path, p.Role); err != nil {
		return seed.Key{}, err
	}
	return readKey(path)
}

// authorized is the key that the guest of p lets in.
func (u *upRun) authorized(p vmPlan) (seed.Key, error) {
	return readKey(p.identity)
}
