package warm

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"castra.example/castra/castra/internal/host"
)

const (
	// asideKept is how many damaged templates are kept to look at.
	asideKept = 2
	// clockSlack is how far in the future a last use may lie and be believed.
	clockSlack = time.Minute
)

// drop removes the directory called name if it is ours and nobody uses it, and
// tells whether it did. That somebody uses it is no error; fs.ErrNotExist
// where it is not there.
func (s *Store) drop(root *os.Root, name string) (bool, error) {
	if err := ours(root, name); err != nil {
		return false, err
	}
	held, err := s.hold(name, os.O_CREATE)
	if errors.Is(err, errInUse) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock(held)
	if err := discard(root, name); err != nil {
		return false, err
	}
	return true, nil
}

// SetAside takes a damaged template out of use and keeps it, with why in a
// file, to be looked at: it and the one set aside before it, if nobody uses
// the older ones. One that is gone is no error.
func (s *Store) SetAside(key, why string) error {
	return failed("set aside warm template", s.path(key), s.setAside(key, why))
}

func (s *Store) setAside(key, why string) error {
	if !keyName.MatchString(key) {
		return errors.New("not the key of a template")
	}
	root, err := s.root()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	if err := ours(root, key); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	aside := fmt.Sprintf(".bad-%s-%d", key, time.Now().UnixNano())
	if err := root.Rename(key, aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	faults := []error{explain(root, aside, why)}
	entries, err := fs.ReadDir(root.FS(), ".")
	faults = append(faults, err)
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !asideName.MatchString(e.Name()) })
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(asideSince(b.Name()), asideSince(a.Name())) })
	for _, e := range entries[min(asideKept, len(entries)):] {
		if _, err := s.drop(root, e.Name()); !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// explain writes why a template was set aside beside it. What has that name is
// replaced and never written to: it may be another's file too.
func explain(root *os.Root, aside, why string) error {
	dir, err := host.OpenBelow(root, aside)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Remove(whyName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.OpenFile(whyName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(why + "\n")
	return errors.Join(err, f.Close())
}

// asideSince is when the directory called name was set aside, in nanoseconds.
func asideSince(name string) int64 {
	n, _ := strconv.ParseInt(asideName.FindStringSubmatch(name)[2], 10, 64)
	return n
}

// Evict removes templates until at most limit bytes on disk are used: first
// what was set aside, then the least recently used. One in use stays, and so
// does the last used of all. It gives what it removed.
func (s *Store) Evict(limit int64) ([]Info, error) {
	gone, err := s.evict(limit)
	return gone, failed("evict warm templates from", s.dir, err)
}

func (s *Store) evict(limit int64) (gone []Info, err error) {
	root, err := s.root()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	faults := []error{s.sweep(root)}
	aside, err := s.list(asideName.MatchString)
	faults = append(faults, err)
	all, err := s.list(keyName.MatchString)
	faults = append(faults, err)
	now := time.Now()
	slices.SortStableFunc(all, func(a, b Info) int { return lastUse(a, now).Compare(lastUse(b, now)) })
	var total int64
	for _, info := range slices.Concat(aside, all) {
		total += info.Bytes
	}
	for _, info := range slices.Concat(aside, all[:max(0, len(all)-1)]) {
		if total <= limit {
			break
		}
		removed, err := s.drop(root, info.Key)
		if removed {
			gone = append(gone, info)
		}
		if removed || errors.Is(err, fs.ErrNotExist) {
			total -= info.Bytes
		} else {
			faults = append(faults, err)
		}
	}
	return gone, errors.Join(faults...)
}

// lastUse is when a template was last used, as far as it can be believed. A
// time to come says that the clock went back, and nothing of the template: it
// is as good as never, or it would stay for all that time.
func lastUse(i Info, now time.Time) time.Time {
	if i.Used.After(now.Add(clockSlack)) {
		return time.Time{}
	}
	return i.Used
}

// Remove removes templates by key, and leftovers by the name that Leftovers
// gives them. Those in use are kept. One that is gone is no error and in
// neither list; what is not Castra's is left and is an error.
func (s *Store) Remove(keys ...string) (removed []Info, kept []Info, err error) {
	root, err := s.root()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, failed("remove warm templates from", s.dir, err)
	}
	defer root.Close()
	var faults []error
	for _, key := range keys {
		if !keyName.MatchString(key) && !asideName.MatchString(key) && !newName.MatchString(key) && !goneName.MatchString(key) {
			faults = append(faults, fmt.Errorf("%q is not the key of a template", key))
			continue
		}
		err := ours(root, key)
		var gone bool
		var info Info
		if err == nil {
			info = s.info(root, key)
			gone, err = s.drop(root, key)
		}
		switch {
		case gone:
			removed = append(removed, info)
		case err == nil:
			kept = append(kept, info)
		case !errors.Is(err, fs.ErrNotExist):
			faults = append(faults, err)
		}
	}
	return removed, kept, failed("remove warm templates from", s.dir, errors.Join(faults...))
}
