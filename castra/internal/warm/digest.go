package warm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// cacheEntries is how many entries a cache keeps.
const cacheEntries = 256

// digestEntry is what is remembered of a file of the host.
type digestEntry struct {
	Identity host.Identity `json:"identity"`
	Digest   string        `json:"digest"`
}

// Digest is "sha256:…" of the regular file at path, symlinks followed. It is
// remembered, where the store can be written to, so that a file that stays as
// it is is read once.
func (s *Store) Digest(ctx context.Context, path string) (string, error) {
	sum, err := s.digest(ctx, path)
	return sum, failed("take the digest of", path, err)
}

func (s *Store) digest(ctx context.Context, path string) (string, error) {
	sum, id, settled, err := s.sum(ctx, path)
	if err == nil && settled {
		_ = s.remember(digestsName, digestName(path), digestEntry{id, sum}) // else it is read again
	}
	return sum, err
}

// sum tells also whether the digest is new and can be remembered: a file that was written a
// moment ago could be written again without its times telling.
func (s *Store) sum(ctx context.Context, path string) (sum string, id host.Identity, settled bool, err error) {
	f, id, err := openAny(path)
	if err != nil {
		return "", id, false, err
	}
	defer f.Close()
	if sum, ok := s.recall(path, id); ok {
		return sum, id, false, nil
	}
	begun := time.Now()
	h := sha256.New()
	if _, err := io.Copy(h, &untilDone{ctx, f}); err != nil {
		return "", id, false, err
	}
	after, err := host.Identify(f)
	if err == nil && after != id {
		err = fmt.Errorf("it changed while it was read: %w", fs.ErrInvalid)
	}
	if err != nil {
		return "", id, false, err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), id, id.Settled(begun), nil
}

// Sum is Digest without remembering: it writes nothing.
func (s *Store) Sum(ctx context.Context, path string) (string, error) {
	sum, _, _, err := s.sum(ctx, path)
	return sum, failed("take the digest of", path, err)
}

// untilDone is a reader that ends with ctx.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}

// openAny opens a regular file of anybody's.
func openAny(path string) (*os.File, host.Identity, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would wait
	if err != nil {
		return nil, host.Identity{}, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("not a regular file: %w", fs.ErrInvalid)
	}
	var id host.Identity
	if err == nil {
		id, err = host.Identify(f)
	}
	if err != nil {
		f.Close()
		return nil, host.Identity{}, err
	}
	return f, id, nil
}

func digestName(path string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(path)))
	return hex.EncodeToString(sum[:16])
}

func (s *Store) recall(path string, id host.Identity) (string, bool) {
	var e digestEntry
	if !s.load(digestsName, digestName(path), &e) || e.Identity != id || !strings.HasPrefix(e.Digest, "sha256:") {
		return "", false
	}
	return e.Digest, true
}

// SaveFacts remembers v, as JSON, under a name of hexadecimal digits.
func (s *Store) SaveFacts(name string, v any) error {
	return failed("save facts to", s.path(factsDir, name+".json"), s.remember(factsDir, name, v))
}

// LoadFacts gives v what SaveFacts remembered, and tells whether there was
// anything. Where there was not, what v holds means nothing.
func (s *Store) LoadFacts(name string, v any) bool { return s.load(factsDir, name, v) }

// load reads an entry of a cache; a corrupt one, or one that others can write
// to, is none.
func (s *Store) load(cache, name string, v any) bool {
	return factsName.MatchString(name) && checkDir(s.dir) == nil && checkDir(s.path(cache)) == nil &&
		readJSON(s.path(cache, name+".json"), v) == nil
}

// remember writes an entry of a cache and removes the oldest beyond
// cacheEntries.
func (s *Store) remember(cache, name string, v any) error {
	if !factsName.MatchString(name) {
		return fmt.Errorf("%q is not hexadecimal: %w", name, fs.ErrInvalid)
	}
	root, err := s.create()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	if err := checkDir(s.path(cache)); err != nil {
		return err
	}
	if err := writeJSON(s.path(cache, name+".json"), v); err != nil {
		return err
	}
	return bound(root, cache, name)
}

// bound removes the oldest entries of a cache beyond cacheEntries, but not the
// one called kept, which a clock that went back may make the oldest.
func bound(root *os.Root, cache, kept string) error {
	entries, err := fs.ReadDir(root.FS(), cache)
	if err != nil || len(entries) <= cacheEntries {
		return err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		base, isEntry := strings.CutSuffix(e.Name(), ".json")
		if info, err := e.Info(); err == nil && base != kept && (isEntry && factsName.MatchString(base) || tempName.MatchString(e.Name())) {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files[:max(0, len(files)-cacheEntries+1)] {
		_ = root.Remove(cache + "/" + f.Name()) // another may have done so
	}
	return nil
}
