package castra

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
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
	key, err := seed.NewKey(comment)
	pem := key.Private
	if err == nil && p.keys != "" {
		pem, err = shareKey(filepath.Join(p.keys, filepath.Base(path)), pem)
	}
	if err != nil {
		return err
	}
	return workspace.WriteFile(path, pem)
}

// shareKey files a key for all workspaces where there is none yet, and gives the one that is there.
func shareKey(path string, pem []byte) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := workspace.CreateFile(path, ".new-"+filepath.Base(path)+"-", pem); err != nil {
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

// readKey reads a private key of the workspace or the user.
func readKey(path string) (seed.Key, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return seed.Key{}, err
	}
	key, err := seed.ParseKey(pem)
	if err != nil {
		return seed.Key{}, fmt.Errorf("key %s: %w", path, err)
	}
	return key, nil
}

// digestKey is what digests of secret values are keyed with; nil while the workspace has no key of its own, and so nothing that
// a digest would be compared with.
func digestKey(l workspace.Layout) ([]byte, error) {
	pem, err := os.ReadFile(l.Identity())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("key of the workspace: %w", err)
	}
	return keyed([]byte("castra digest key"), pem), nil
}

// keyed is the HMAC of data by SHA-256.
func keyed(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write(data) // never fails
	return h.Sum(nil)
}
