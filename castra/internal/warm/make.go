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

// stageTries is how often a staging directory may be swept away before its
// maker has locked it, or another's template come and go.
const stageTries = 10

// step is told what Make has done; tests die there.
var step = func(string) {}

// Meta is what a manifest holds beside the ingredients and the files.
type Meta struct {
	Hostname string // of the guest that is saved
	Wake     string // path in the guest of the program that wakes it
}

// Make makes the template of these ingredients out of what fill writes to dir:
// disk.qcow2, and either both ram and state or none of them, and nothing else.
// The store is made where it is missing. A template that is there already, of
// another maker, stays and is the one told of. An error, a ctx that is done,
// or a kill at any point leaves no template or a whole one.
func (s *Store) Make(ctx context.Context, i Ingredients, meta Meta, fill func(dir string) error) (Info, error) {
	info, err := s.make(ctx, i, meta, fill)
	return info, failed("make warm template", s.path(i.Key()), err)
}

func (s *Store) make(ctx context.Context, i Ingredients, meta Meta, fill func(dir string) error) (_ Info, err error) {
	root, err := s.create()
	if err != nil {
		return Info{}, err
	}
	defer root.Close()
	_ = s.sweep(root) // Sweep tells of what cannot be removed; here it is in nobody's way
	name, lock, err := s.stage(root)
	if err != nil {
		return Info{}, err
	}
	defer unlock(lock)
	done := false
	defer func() {
		if !done {
			err = errors.Join(err, discard(root, name))
		}
	}()

	dir, key := s.path(name), i.Key()
	step("staged")
	if err := fill(dir); err != nil {
		return Info{}, err
	}
	step("filled")
	if err := describe(ctx, dir, i, meta); err != nil {
		return Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	if done, err = publish(root, name, key); err != nil {
		return Info{}, err
	}
	step("renamed")
	return s.info(root, key), nil
}

// publish gives the finished directory called name its key, and tells that it
// did: not where another was first.
func publish(root *os.Root, name, key string) (bool, error) {
	var err error
	for range stageTries {
		err = root.Rename(name, key)
		if err == nil {
			_ = root.Remove(filepath.Join(key, lockName)) // or the next sweep does
			return true, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return false, err
		}
		if err = ours(root, key); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		// The other one's was removed meanwhile.
	}
	return false, err
}

// stage makes a staging directory and locks it.
func (s *Store) stage(root *os.Root) (name string, lock *os.File, err error) {
	for range stageTries {
		name = ".new-" + random()
		if err = root.Mkdir(name, 0o700); err != nil {
			return "", nil, err
		}
		step("unlocked")
		lock, err = lockFile(s.path(name, lockName), os.O_RDWR|os.O_CREATE, unix.LOCK_EX)
		if err == nil {
			return name, lock, nil
		}
		if !errors.Is(err, errInUse) && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, errors.Join(err, discard(root, name))
		}
	}
	return "", nil, fmt.Errorf("lock %s: %w", s.path(name), err)
}

// describe writes what tells the template in dir is whole, the manifest last.
// Nothing is synced, which would take seconds for a guest's memory: the files
// are believed unread in this boot alone, and after a power failure their
// digests tell.
func describe(ctx context.Context, dir string, i Ingredients, meta Meta) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	m := Manifest{Format: format, Ingredients: i.normal(), Made: time.Now(), Hostname: meta.Hostname, Wake: meta.Wake}
	for _, e := range entries { // sorted: disk.qcow2, ram, state
		if e.Name() != lockName {
			m.Files = append(m.Files, File{Name: e.Name()})
		}
	}
	if p := m.problem(i.Key()); p != "" {
		return errors.New(p)
	}
	if !m.has(RAMName) {
		m.Wake = ""
	}
	ids := seen{host.BootID(), map[string]host.Identity{}}
	for n, f := range m.Files {
		if m.Files[n], ids.Files[f.Name], err = record(ctx, dir, f.Name); err != nil {
			return err
		}
	}
	step("digested")
	if err := writeJSON(filepath.Join(dir, seenName), ids); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(dir, manifestName), m); err != nil {
		return err
	}
	step("described")
	return nil
}

// record makes one file the user's alone and takes its size, digest and
// identity.
func record(ctx context.Context, dir, name string) (File, host.Identity, error) {
	path := filepath.Join(dir, name)
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return File{}, host.Identity{}, fmt.Errorf("%s is not a regular file: %w", path, errors.Join(err, fs.ErrInvalid))
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return File{}, host.Identity{}, err
	}
	f, err := openOwn(path)
	if err != nil {
		return File{}, host.Identity{}, err
	}
	defer f.Close()
	id, err := host.Identify(f)
	if err != nil {
		return File{}, host.Identity{}, err
	}
	sum, err := digest(ctx, f, id.Bytes)
	if err != nil {
		return File{}, host.Identity{}, err
	}
	if after, err := host.Identify(f); err != nil || after != id {
		return File{}, host.Identity{}, fmt.Errorf("%s changed while it was read: %w", path, errors.Join(err, fs.ErrInvalid))
	}
	return File{name, id.Bytes, sum}, id, nil
}

// Sweep removes what killed commands left of templates they were making or
// removing.
func (s *Store) Sweep() error {
	root, err := s.root()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer root.Close()
		err = s.sweep(root)
	}
	return failed("sweep warm templates in", s.dir, err)
}

func (s *Store) sweep(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	faults := []error{err}
	for _, e := range entries {
		switch name := e.Name(); {
		case (newName.MatchString(name) || goneName.MatchString(name)) && ours(root, name) == nil:
			_, err := s.drop(root, name)
			faults = append(faults, err)
		case name == digestsName || name == factsDir || keyName.MatchString(name) && ours(root, name) == nil:
			if st, err := root.Lstat(name); err == nil && st.IsDir() {
				faults = append(faults, s.dropStaged(root, name))
			}
			if keyName.MatchString(name) { // publish was killed before it did
				faults = append(faults, root.Remove(filepath.Join(name, lockName)))
			}
		}
	}
	return errors.Join(slices.DeleteFunc(faults, func(err error) bool { return errors.Is(err, fs.ErrNotExist) })...)
}
