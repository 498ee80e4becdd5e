package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/image/digest"
)

const (
	// imagesDir is the directory below CASTRA_HOME that holds the store.
	imagesDir = "images"

	factsName    = "facts.json"
	lockName     = "lock"
	downloadName = "download.part"
	unpackName   = "unpack.part"

	// lockPoll is how often somebody who waits looks whether the lock is free.
	lockPoll = 50 * time.Millisecond
)

// keyName matches the directory of an image, goneName one being removed.
var (
	keyName  = regexp.MustCompile(`^sha(512|256)-[0-9a-f]{32}$`)
	goneName = regexp.MustCompile(`^\.gone-[0-9a-f]{16}$`)
)

// diskNames are the names that a disk can have in its directory.
var diskNames = []string{"disk." + FormatQcow2, "disk." + FormatRaw}

// Source is an image to have: what it is known by, and where to fetch it.
type Source struct {
	Name   string        // in the catalogue, or ""
	URL    string        // https
	Digest digest.Digest // of the file at URL; required
	Size   int64         // of the file at URL in bytes; 0: not known
	// Mirror is where to fetch from instead: a directory, as a URL (http and
	// file too) or an absolute path, that holds the file by the last name in
	// URL. "" for none.
	Mirror string
}

func (s Source) label() string {
	if s.Name != "" {
		return s.Name
	}
	return s.fileName()
}

// fileName is the last name in the URL; "" where there is none.
func (s Source) fileName() string {
	u, err := url.Parse(s.URL)
	if err != nil || u.Path == "" || strings.HasSuffix(u.Path, "/") {
		return ""
	}
	return path.Base(u.Path)
}

// key names the image's directory.
func (s Source) key() (string, error) {
	if known, err := digest.Parse(s.Digest.String()); err != nil || known != s.Digest {
		return "", fmt.Errorf("its digest cannot be used: %w", errors.Join(err, fs.ErrInvalid))
	}
	return s.Digest.Algorithm + "-" + s.Digest.Hex[:32], nil
}

// address is where to fetch it.
func (s Source) address() (string, error) {
	if s.Mirror == "" {
		return s.URL, nil
	}
	name := s.fileName()
	if name == "" {
		return "", fmt.Errorf("its URL has no file name to look for at the mirror: %w", fs.ErrInvalid)
	}
	if filepath.IsAbs(s.Mirror) {
		return (&url.URL{Scheme: "file", Path: filepath.Join(s.Mirror, name)}).String(), nil
	}
	u, err := url.Parse(s.Mirror)
	if err != nil {
		return "", errors.New("the address of the mirror cannot be read") // its text may hold a password
	}
	return u.JoinPath(name).String(), nil
}

// Disk is a base image in the store.
type Disk struct {
	Path, Format string        // Format FormatQcow2 or FormatRaw
	Bytes        int64         // of the file, holes included
	VirtualSize  uint64        // bytes
	Digest       digest.Digest // of the download, which may be a packed form of the disk
	Downloaded   bool          // just now
	Hashed       time.Duration // what it took to check it again; 0: it was known to be whole
}

// store is CASTRA_HOME/images.
type store struct{ root *os.Root }

// openStore opens it; fs.ErrNotExist where there is none and create is false.
func openStore(home string, create bool) (*store, error) {
	top, err := openHome(home, create)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	root, err := openBelow(top, imagesDir, create)
	if err != nil {
		return nil, err
	}
	return &store{root}, nil
}

func (s *store) close() { s.root.Close() }

// slot is the directory of one image.
type slot struct{ root *os.Root }

func (s *store) slot(key string) (*slot, error) {
	root, err := openBelow(s.root, key, false)
	if err != nil {
		return nil, err
	}
	return &slot{root}, nil
}

func (s *slot) close()                  { s.root.Close() }
func (s *slot) path(name string) string { return filepath.Join(s.root.Name(), name) }

// lock makes the image's directory where there is none and locks it, until
// release or the end of this process. Waiting is called once, where another has
// the lock; the wait is as long as ctx.
func (s *store) lock(ctx context.Context, key string, waiting func()) (release func(), err error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		release, err := s.tryLock(key)
		if release != nil || err != nil {
			return release, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another castra that fetches or checks it: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// tryLock is nil without an error where another has the lock.
func (s *store) tryLock(key string) (release func(), err error) {
	dir, err := openBelow(s.root, key, true)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := filepath.Join(dir.Name(), lockName)
	l := flock.New(name, flock.SetFlag(os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK), flock.SetPermissions(0o600))
	got, err := l.TryLock()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // removed just now
	case errors.Is(err, unix.ELOOP):
		return nil, &UnsafeError{name, "is a symlink", "rm " + quote(name)}
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", name, err)
	case !got:
		return nil, nil
	}
	locked, err := l.Stat()
	now, nowErr := os.Lstat(name)
	if err != nil || nowErr != nil || !os.SameFile(locked, now) { // Remove has moved it away
		l.Unlock()
		return nil, nil
	}
	return func() { l.Unlock() }, nil
}

// Find looks for an image without a lock, and writes and hashes nothing. Ok
// says that it is there, of the recorded size.
func Find(home string, s Source) (d Disk, ok bool) {
	sl, err := findSlot(home, s)
	if err != nil {
		return Disk{}, false
	}
	defer sl.close()
	f, ok := sl.facts(s.Digest)
	if !ok {
		return Disk{}, false
	}
	st, err := sl.root.Lstat(f.Disk.Name)
	if err != nil || !st.Mode().IsRegular() || st.Size() != f.Disk.Bytes {
		return Disk{}, false
	}
	return sl.disk(f), true
}

// findSlot opens the directory of an image that is there.
func findSlot(home string, s Source) (*slot, error) {
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	st, err := openStore(home, false)
	if err != nil {
		return nil, err
	}
	defer st.close()
	return st.slot(key)
}
