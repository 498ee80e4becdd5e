package warm

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemu"
)

// Names of the files in a template's directory. The first three are for who
// fills one.
const (
	DiskName  = "disk.qcow2"
	RAMName   = "ram"
	StateName = "state"

	manifestName = "manifest.json"
	seenName     = "seen.json"
	lockName     = "lock"
	whyName      = "why.txt"

	digestsName = "digests"
	factsDir    = "facts"
)

// known is what a template's directory may hold and still be ours to remove.
var known = []string{manifestName, seenName, DiskName, RAMName, StateName, lockName, whyName}

// Store is CASTRA_HOME/templates.
type Store struct{ dir string }

// Info tells of one template, or of what is left of one.
type Info struct {
	Key   string // of a leftover the name of its directory
	Stage Stage  // "" where the manifest cannot be read
	Owner string
	Made  time.Time // zero where the manifest cannot be read
	Used  time.Time // last use; zero where there is no manifest
	Bytes int64     // on disk
	InUse bool      // somebody holds its lock, or a living QEMU has its disk open
	RAM   bool      // it has the guest's memory
}

// Open gives the store under home, an absolute path, and makes nothing. One
// that is not the user's alone is refused with an *UnsafeError; one that is
// not there is empty.
func Open(home string) (*Store, error) {
	s := &Store{filepath.Join(home, "templates")}
	if !filepath.IsAbs(home) {
		return nil, &Error{"open store of warm templates", s.dir, errors.New("not an absolute path")}
	}
	if err := checkDir(s.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failed("open store of warm templates", s.dir, err)
	}
	return s, nil
}

// Dir is where the store is.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// root opens the store's directory; fs.ErrNotExist where there is none.
func (s *Store) root() (*os.Root, error) {
	if err := checkDir(s.dir); err != nil {
		return nil, err
	}
	return os.OpenRoot(s.dir)
}

// create is root, and makes the directory where there is none.
func (s *Store) create() (*os.Root, error) {
	root, err := s.root()
	if !errors.Is(err, fs.ErrNotExist) {
		return root, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	return s.root()
}

// All lists the templates, sorted by key.
func (s *Store) All() ([]Info, error) {
	all, err := s.list(keyName.MatchString)
	return all, failed("list warm templates in", s.dir, err)
}

// Leftovers lists what was set aside, and what killed commands left of
// templates they were making or removing.
func (s *Store) Leftovers() ([]Info, error) {
	all, err := s.list(func(name string) bool {
		return newName.MatchString(name) || goneName.MatchString(name) || asideName.MatchString(name)
	})
	all = slices.DeleteFunc(all, func(i Info) bool { return i.InUse && newName.MatchString(i.Key) })
	return all, failed("list warm templates in", s.dir, err)
}

// list tells of the directories that are ours and whose name matches.
func (s *Store) list(match func(string) bool) ([]Info, error) {
	root, err := s.root()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	var all []Info
	for _, e := range entries {
		if match(e.Name()) && ours(root, e.Name()) == nil {
			all = append(all, s.info(root, e.Name()))
		}
	}
	return all, err
}

// ours is nil where the directory is of our user, and holds nothing but what
// we put there. One that was being made or removed may hold anything.
func ours(root *os.Root, name string) error {
	path := filepath.Join(root.Name(), name)
	st, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s: not a directory, so it is left", path)
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: of another user, so it is left", path)
	}
	if newName.MatchString(name) || goneName.MatchString(name) {
		return nil
	}
	dir, err := host.OpenBelow(root, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := fs.ReadDir(dir.FS(), ".")
	for _, e := range entries {
		if e.IsDir() || !slices.Contains(known, e.Name()) && !tempName.MatchString(e.Name()) {
			return fmt.Errorf("%s holds %q, which Castra did not make, so it is left", path, e.Name())
		}
	}
	return err
}

// info tells of one directory; what cannot be read is zero.
func (s *Store) info(root *os.Root, name string) Info {
	i := Info{Key: name, Bytes: host.TreeUsage(root.FS(), name)}
	if st, err := os.Lstat(s.path(name, manifestName)); err == nil {
		i.Used = st.ModTime()
	}
	var m Manifest
	if readJSON(s.path(name, manifestName), &m) == nil {
		i.Stage, i.Owner, i.Made, i.RAM = m.Ingredients.Stage, m.Ingredients.Owner, m.Made, m.has(RAMName)
	}
	held, err := s.hold(name, 0)
	unlock(held)
	i.InUse = err != nil && !errors.Is(err, fs.ErrNotExist)
	return i
}

// hold takes the lock that says that nobody uses the directory called name. An
// error says that somebody does, or that it cannot be known: errInUse where
// that is all. There may be nothing to lock, which is nil. Flag is os.O_CREATE
// where the lock of a template in the making is to be made if it is missing, so
// that its maker does not take it meanwhile; else that is fs.ErrNotExist.
func (s *Store) hold(name string, flag int) (*os.File, error) {
	if goneName.MatchString(name) {
		return nil, nil
	}
	if newName.MatchString(name) {
		return lockFile(s.path(name, lockName), os.O_RDWR|flag, unix.LOCK_EX)
	}
	held, err := lockFile(s.path(name, manifestName), os.O_RDONLY, unix.LOCK_EX)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	used, err := qemu.InUse(s.path(name, DiskName))
	if err == nil && used {
		err = errInUse
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		unlock(held)
		return nil, err
	}
	return held, nil
}

// discard removes the directory called name: out of the way by one rename
// first, so that a kill half way leaves no half template.
func discard(root *os.Root, name string) error {
	gone := name
	if !goneName.MatchString(name) {
		gone = ".gone-" + random()
		if err := root.Rename(name, gone); err != nil {
			return err
		}
	}
	return root.RemoveAll(gone)
}

func random() string { return fmt.Sprintf("%016x", rand.Uint64()) }
