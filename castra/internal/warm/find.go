package warm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

const (
	// lockWait bounds the wait for somebody who looks whether a template is
	// in use, or has begun to remove it.
	lockWait = 2 * time.Second
	lockPoll = 5 * time.Millisecond
)

// Manifest says what a template was made of, and what it is.
type Manifest struct {
	Format      int         `json:"format"`
	Ingredients Ingredients `json:"ingredients"`
	Made        time.Time   `json:"made"`
	Hostname    string      `json:"hostname"` // of the guest that was saved
	// Wake is the path in the guest of the program that wakes it; "" without
	// memory.
	Wake  string `json:"wake"`
	Files []File `json:"files"`
}

// File is one file of a template.
type File struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"` // apparent
	// SHA256 is a digest that leaves out zeros (see digest), so sha256sum gives
	// another.
	SHA256 string `json:"sha256"`
}

func (m Manifest) has(name string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == name })
}

// problem is "" where m may be the manifest of the template called key.
func (m Manifest) problem(key string) string {
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	switch {
	case m.Format != format:
		return fmt.Sprintf("manifest has format %d, and this Castra knows %d", m.Format, format)
	case m.Ingredients.Key() != key:
		return "manifest is of another template"
	case !slices.Equal(names, []string{DiskName}) && !slices.Equal(names, []string{DiskName, RAMName, StateName}):
		return fmt.Sprintf("manifest lists the files %q", names)
	}
	return ""
}

// Template is one that was found whole. One that Find gave stays until
// Release.
type Template struct {
	Dir, Key string
	Manifest Manifest

	lock *os.File // nil when peeked at
}

// Disk is the path of the saved overlay.
func (t *Template) Disk() string { return filepath.Join(t.Dir, DiskName) }

// HasRAM tells that the template has the guest's memory.
func (t *Template) HasRAM() bool { return t.Manifest.has(RAMName) }

// RAM is the path of the guest's memory; "" where the template has none.
func (t *Template) RAM() string { return t.ifRAM(RAMName) }

// State is the path of the devices' state; "" where the template has no memory.
func (t *Template) State() string { return t.ifRAM(StateName) }

func (t *Template) ifRAM(name string) string {
	if !t.HasRAM() {
		return ""
	}
	return filepath.Join(t.Dir, name)
}

// Release lets Evict and Remove have the template. It may be called again.
func (t *Template) Release() {
	unlock(t.lock)
	t.lock = nil
}

// Find gives the template of these ingredients, keeps it from being removed
// until Release, and notes that it was used now. It reads the files only where
// they have changed, or the computer has booted, since they were last checked;
// that may take a second for each GiB in use. Errors are *MissError,
// *BadError, *UnsafeError, of the file system, or the cause of ctx.
func (s *Store) Find(ctx context.Context, i Ingredients) (*Template, error) {
	return s.find(ctx, i, true)
}

// Peek is Find without keeping and noting: it writes nothing, and the template
// may go at any time.
func (s *Store) Peek(ctx context.Context, i Ingredients) (*Template, error) {
	return s.find(ctx, i, false)
}

func (s *Store) find(ctx context.Context, i Ingredients, use bool) (*Template, error) {
	t := &Template{Key: i.Key()}
	t.Dir = s.path(t.Key)
	for _, dir := range []string{s.dir, t.Dir} {
		if err := checkDir(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, s.miss(i)
		} else if err != nil {
			return nil, failed("open warm template", t.Dir, err)
		}
	}
	err := t.open(ctx, use)
	if err == nil {
		err = t.verify(ctx, use)
	}
	if err != nil {
		t.Release()
		return nil, failed("open warm template", t.Dir, err)
	}
	if use {
		// A store that cannot be written to still gives its templates; they
		// only seem older than they are.
		_ = os.Chtimes(filepath.Join(t.Dir, manifestName), time.Time{}, time.Now())
	} else {
		t.Release()
	}
	return t, nil
}

// open locks the manifest if wanted, and reads it.
func (t *Template) open(ctx context.Context, lock bool) error {
	path := filepath.Join(t.Dir, manifestName)
	var err error
	if lock {
		t.lock, err = await(ctx, path)
	} else {
		t.lock, err = openOwn(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(t.Dir); err != nil {
			return &MissError{"it has just been removed"}
		}
		return &BadError{t.Key, manifestName + " is missing"}
	}
	if errors.Is(err, errInUse) {
		return &MissError{"it is being removed"}
	}
	if err == nil {
		err = checkFile(t.lock)
	}
	if err != nil {
		return err
	}
	if err := decode(t.lock, &t.Manifest); err != nil {
		return &BadError{t.Key, fmt.Sprintf("%s: %s", manifestName, err)}
	}
	if p := t.Manifest.problem(t.Key); p != "" {
		return &BadError{t.Key, p}
	}
	return nil
}

// await locks the manifest at path for reading within lockWait.
func await(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for end := time.Now().Add(lockWait); ; {
		f, err := lockFile(path, os.O_RDONLY, unix.LOCK_SH)
		if !errors.Is(err, errInUse) || time.Now().After(end) {
			return f, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// seen are the files of a template as they were when their digests were right.
type seen struct {
	Boot  string                   `json:"boot"`
	Files map[string]host.Identity `json:"files"`
}

// verify believes a file that has the identity of one it has seen in this
// boot. After another boot the digest decides: a power failure can lose what
// was written and keep the identity.
func (t *Template) verify(ctx context.Context, note bool) error {
	var old seen
	if readJSON(filepath.Join(t.Dir, seenName), &old) != nil || old.Boot == "" {
		old = seen{}
	}
	now := seen{host.BootID(), map[string]host.Identity{}}
	read := false
	for _, f := range t.Manifest.Files {
		id, known := old.Files[f.Name]
		got, hashed, err := t.verifyFile(ctx, f, id, known && old.Boot == now.Boot)
		if err != nil {
			return err
		}
		now.Files[f.Name] = got
		read = read || hashed
	}
	if read && note {
		_ = writeJSON(filepath.Join(t.Dir, seenName), now) // else the next one reads them again
	}
	return nil
}

func (t *Template) verifyFile(ctx context.Context, want File, old host.Identity, known bool) (id host.Identity, hashed bool, err error) {
	f, err := openOwn(filepath.Join(t.Dir, want.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, &BadError{t.Key, want.Name + " is missing"}
	}
	if err != nil {
		return id, false, err
	}
	defer f.Close()
	if id, err = host.Identify(f); err != nil {
		return id, false, err
	}
	if id.Bytes != want.Bytes {
		return id, false, &BadError{t.Key, fmt.Sprintf("%s has %d bytes and should have %d", want.Name, id.Bytes, want.Bytes)}
	}
	if known && id == old {
		return id, false, nil
	}
	sum, err := digest(ctx, f, id.Bytes)
	if ctx.Err() != nil { // which says nothing of the template
		return id, true, context.Cause(ctx)
	}
	if err != nil {
		return id, true, &BadError{t.Key, err.Error()}
	}
	if after, err := host.Identify(f); err != nil || sum != want.SHA256 || after != id {
		return id, true, &BadError{t.Key, want.Name + " is not what was saved"}
	}
	return id, true, nil
}

// miss tells in what the nearest template of the same stage and owner differs.
func (s *Store) miss(i Ingredients) error {
	names, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed("list warm templates in", s.dir, err)
	}
	var nearest []string
	for _, e := range names {
		var m Manifest
		if !keyName.MatchString(e.Name()) || checkDir(s.path(e.Name())) != nil || readJSON(s.path(e.Name(), manifestName), &m) != nil {
			continue
		}
		if m.Ingredients.Stage != i.Stage || m.Ingredients.Owner != i.Owner {
			continue
		}
		differ := changed(m.Ingredients, i)
		if m.Format != format {
			differ = append(differ, "format")
		}
		if len(differ) > 0 && (nearest == nil || len(differ) < len(nearest)) {
			nearest = differ
		}
	}
	if nearest == nil {
		return &MissError{"no template yet"}
	}
	return &MissError{reason(nearest)}
}
