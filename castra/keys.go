package castra

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"castra.example/castra/castra/event"
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
	if usable, err := p.usableKey(path); usable || err != nil {
		return err
	}
	if err := ws.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	key, err := seed.NewKey(comment)
	pem := key.Private
	if err == nil && p.keys != "" {
		pem, err = p.shareKey(filepath.Join(p.keys, filepath.Base(path)), pem)
	}
	if err != nil {
		return err
	}
	return workspace.WriteFile(path, pem)
}

// shareKey files a key for all workspaces where there is none yet, and gives the one that is there.
func (p *Project) shareKey(path string, pem []byte) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if _, err := p.usableKey(path); err != nil {
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

// usableKey tells that there is a key of Castra's own making at path. One that is damaged is set aside, or no up would
// work any more.
func (p *Project) usableKey(path string) (bool, error) {
	_, err := readKey(path)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case !as[*KeyError](err):
		return false, err
	}
	aside, moveErr := workspace.SetAside(path)
	if moveErr != nil {
		return false, errors.Join(err, moveErr)
	}
	p.say(event.Message{Level: "warning", Text: fmt.Sprintf("%v; it is kept as %s, and a new one is made", err, aside),
		Hint: "VMs that run know the old key alone: mage down, then mage up"})
	return false, nil
}

// KeyError says: a file is no private key that Castra can use.
type KeyError struct {
	Path string
	Err  error
}

func (e *KeyError) Error() string { return fmt.Sprintf("key %s: %v", e.Path, e.Err) }
func (e *KeyError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *KeyError) Hint() string {
	return "it must be an ed25519 key in OpenSSH's format, without a passphrase: ssh-keygen -t ed25519 makes one"
}

// readKey reads a private key of the workspace or the user.
func readKey(path string) (seed.Key, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return seed.Key{}, err
	}
	key, err := seed.ParseKey(pem)
	if err != nil {
		return seed.Key{}, &KeyError{path, err}
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
