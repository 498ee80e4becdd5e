package image

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image/small"
)

// Stored is one image that is kept under CASTRA_HOME, or what a killed command
// had made of one.
type Stored struct {
	Name string
	// Path is its directory; Disk the base image in it, "" where there is none.
	Path, Disk string
	Bytes      int64 // on disk
	// Current: the next Make would give this one, or the catalogue names it.
	Current bool
}

// All lists the images kept under home: those made here and then those
// downloaded, each sorted by name. What it could list stands beside an error.
func All(home string) ([]Stored, error) {
	kept, err := small.All(home)
	var all []Stored
	for _, k := range kept {
		all = append(all, Stored{k.Name, k.Dir, k.Disk, host.TreeUsage(os.DirFS(k.Dir), "."), k.Current})
	}
	downloaded, storeErr := allDownloaded(home)
	return append(all, downloaded...), errors.Join(err, storeErr)
}

func allDownloaded(home string) ([]Stored, error) {
	st, err := openStored(home)
	if st == nil {
		return nil, err
	}
	defer st.close()
	entries, err := fs.ReadDir(st.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	current := map[string]bool{}
	for _, e := range catalogue {
		if key, err := e.From("").key(); err == nil {
			current[key] = true
		}
	}
	var all []Stored
	for _, e := range entries {
		if st.ours(e.Name()) != nil {
			continue
		}
		s := Stored{Name: e.Name(), Path: filepath.Join(st.root.Name(), e.Name()), Bytes: host.TreeUsage(st.root.FS(), e.Name()), Current: current[e.Name()]}
		for _, name := range diskNames {
			if file, err := st.root.Lstat(filepath.Join(e.Name(), name)); err == nil && file.Mode().IsRegular() && !goneName.MatchString(e.Name()) {
				s.Disk = filepath.Join(s.Path, name)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// openStored opens the store; nil without an error where there is none.
func openStored(home string) (*store, error) {
	if home == "" {
		return nil, nil
	}
	st, err := openStore(home, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	return st, nil
}

// leftover matches what a download, or writing a file, leaves when killed.
var leftover = regexp.MustCompile(`^(\.?download\.part.*|unpack\.part|\..+\.castra-part)$`)

// ours is nil where the directory is of this user, and holds nothing but what
// Castra put there. One that was being removed may hold anything.
func (s *store) ours(name string) error {
	if !keyName.MatchString(name) && !goneName.MatchString(name) {
		return fmt.Errorf("%s: not an image of Castra's, so it is left", filepath.Join(s.root.Name(), name))
	}
	st, err := s.root.Lstat(name)
	if err != nil {
		return err
	}
	path := filepath.Join(s.root.Name(), name)
	if err := checkOwn(path, st, true); err != nil || goneName.MatchString(name) {
		return err
	}
	entries, err := fs.ReadDir(s.root.FS(), name)
	for _, e := range entries {
		known := slices.Contains(diskNames, e.Name()) || e.Name() == factsName || e.Name() == lockName || leftover.MatchString(e.Name())
		if !known || e.IsDir() {
			return fmt.Errorf("%s holds %q, which Castra did not make, so it is left", path, e.Name())
		}
	}
	return err
}

// Remove removes an image that All has listed, and gives the bytes on disk
// that this gave back: a disk that a workspace still has under another name
// gives back none. That no VM runs from it is the caller's to know. One that is
// gone is no error; while an image is being made or fetched it is a *BusyError.
func Remove(home string, s Stored) (int64, error) {
	if keyName.MatchString(s.Name) || goneName.MatchString(s.Name) {
		return removeDownloaded(home, s.Name)
	}
	freed := host.TreeUsage(os.DirFS(s.Path), ".")
	err := small.Remove(home, s.Name)
	if busy := (*small.BusyError)(nil); errors.As(err, &busy) {
		err = &BusyError{Lock: busy.Lock}
	}
	if err != nil {
		return 0, err
	}
	return freed, nil
}

func removeDownloaded(home, name string) (int64, error) {
	st, err := openStored(home)
	if st == nil {
		return 0, err
	}
	defer st.close()
	path := filepath.Join(st.root.Name(), name)
	if err := st.ours(name); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("remove %s: %w", path, err)
	}
	freed := st.exclusive(name)
	if err := st.remove(name); err != nil {
		return 0, err
	}
	return freed, nil
}

// remove moves the directory out of the way by one rename first, so that a kill
// half way leaves no half image, and nobody fetches into what is going.
func (s *store) remove(name string) error {
	path := filepath.Join(s.root.Name(), name)
	gone := name
	if keyName.MatchString(name) {
		release, err := s.tryLock(name)
		if err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
		if release == nil {
			return &BusyError{"image " + name, filepath.Join(path, lockName)}
		}
		defer release()
		gone = fmt.Sprintf(".gone-%016x", rand.Uint64())
		if err := s.root.Rename(name, gone); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
	if err := s.root.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// exclusive adds up what the files of a directory take on disk that have no
// other name elsewhere.
func (s *store) exclusive(dir string) int64 {
	var sum int64
	entries, _ := fs.ReadDir(s.root.FS(), dir) // what cannot be read counts nothing
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Nlink == 1 {
				sum += host.DiskUsage(info)
			}
		}
	}
	return sum
}
