package castra

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"castra.example/castra/castra/internal/seed"
	"castra.example/castra/castra/internal/workspace"
)

// workspaceKey loads the workspace's own SSH key, made on first use. The
// caller holds the lock.
func workspaceKey(ws *workspace.Workspace) error {
	path := ws.Identity()
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := seed.NewKey("castra " + ws.ID)
	if err != nil {
		return err
	}
	if err := ws.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	return workspace.WriteFile(path, key.Private)
}

// authorized is the key that the guest of p lets in.
func (u *upRun) authorized(p vmPlan) (seed.Key, error) {
	pem, err := os.ReadFile(p.identity)
	if err != nil {
		return seed.Key{}, err
	}
	key, err := seed.ParseKey(pem)
	if err != nil {
		return seed.Key{}, fmt.Errorf("identity %s: %w", p.identity, err)
	}
	return key, nil
}
