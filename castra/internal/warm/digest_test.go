package warm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// settled writes a file and, as a ctime cannot be set, waits until it is old
// enough to be remembered.
func settled(t *testing.T, content string) (path, sum string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "base.qcow2")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	time.Sleep(host.ClockGrain + 100*time.Millisecond)
	d := sha256.Sum256([]byte(content))
	return path, "sha256:" + hex.EncodeToString(d[:])
}

func TestDigest(t *testing.T) {
	t.Parallel()
	s := open(t)
	path, want := settled(t, "base image")
	_, isKnown := recalled(s, path)
	require.False(t, isKnown)
	require.NoDirExists(t, s.dir, "asking writes nothing")
	got, err := s.Digest(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, isKnown = recalled(s, path)
	require.True(t, isKnown)
	require.Equal(t, want, got)

	// A hit reads nothing: the entry's word is taken.
	entry := s.path(digestsName, digestName(path)+".json")
	var e digestEntry
	require.NoError(t, readJSON(entry, &e))
	require.NoError(t, writeJSON(entry, digestEntry{e.Identity, "sha256:remembered"}))
	got, err = s.Digest(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, "sha256:remembered", got)

	for name, spoil := range map[string]func() error{
		"half":      func() error { return os.Truncate(entry, 20) },
		"empty":     func() error { return os.Truncate(entry, 0) },
		"no digest": func() error { return writeJSON(entry, digestEntry{e.Identity, ""}) },
		"readable":  func() error { return os.Chmod(entry, 0o644) },
		"symlink": func() error {
			other := filepath.Join(t.TempDir(), "other.json")
			if err := writeJSON(other, digestEntry{e.Identity, "sha256:forged"}); err != nil {
				return err
			}
			return os.Symlink(other, entry+".new")
		},
	} {
		require.NoError(t, spoil(), name)
		if name == "symlink" {
			require.NoError(t, os.Rename(entry+".new", entry))
		}
		_, isKnown := recalled(s, path)
		require.False(t, isKnown, name)
		got, err := s.Digest(t.Context(), path)
		require.NoError(t, err)
		require.Equal(t, want, got, name)
		_, isKnown = recalled(s, path)
		require.True(t, isKnown, "and it is remembered anew: %s", name)
	}

	// Same size and mtime: the ctime tells.
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("BASE IMAGE"), 0o644))
	require.NoError(t, os.Chtimes(path, st.ModTime(), st.ModTime()))
	_, isKnown = recalled(s, path)
	require.False(t, isKnown)
	changed, err := s.Digest(t.Context(), path)
	require.NoError(t, err)
	require.NotEqual(t, want, changed)
	_, isKnown = recalled(s, path)
	require.False(t, isKnown, "written a moment ago, it could change unseen")
}

func TestDigestOfNoFile(t *testing.T) {
	s := open(t)
	dir := t.TempDir()
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	for _, path := range []string{dir, filepath.Join(dir, "none"), filepath.Join(dir, "fifo"), "/dev/null"} {
		_, err := s.Digest(t.Context(), path)
		require.ErrorContains(t, err, path)
		_, isKnown := recalled(s, path)
		require.False(t, isKnown)
	}
}

// An unusable cache costs reading, no more.
func TestDigestWithoutCache(t *testing.T) {
	t.Parallel()
	s := open(t)
	path, want := settled(t, "base")
	require.NoError(t, os.Mkdir(s.dir, 0o755))
	got, err := s.Digest(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoDirExists(t, s.path(digestsName))
	require.NoError(t, os.Chmod(s.dir, 0o700))
	require.NoError(t, os.Symlink(t.TempDir(), s.path(digestsName)))
	got, err = s.Digest(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, want, got)
	_, isKnown := recalled(s, path)
	require.False(t, isKnown)
}

func TestFacts(t *testing.T) {
	s := open(t)
	type facts struct{ Machine string }
	var got facts
	require.False(t, s.LoadFacts("ab12", &got))
	require.NoError(t, s.SaveFacts("ab12", facts{"pc-q35-9.2"}))
	require.True(t, s.LoadFacts("ab12", &got))
	require.Equal(t, "pc-q35-9.2", got.Machine)
	require.NoError(t, s.SaveFacts("ab12", facts{"pc-q35-10.0"}))
	require.True(t, s.LoadFacts("ab12", &got))
	require.Equal(t, "pc-q35-10.0", got.Machine)
	st, err := os.Stat(s.path(factsDir, "ab12.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	require.NoError(t, os.Truncate(s.path(factsDir, "ab12.json"), 5))
	require.False(t, s.LoadFacts("ab12", &got))
	for _, name := range []string{"", "../ab", "AB", "x", "ab.json"} {
		require.Error(t, s.SaveFacts(name, got), name)
		require.False(t, s.LoadFacts(name, &got), name)
	}
	all, err := s.All()
	require.NoError(t, err)
	require.Empty(t, all)
}

// The oldest entries go, and nothing else.
func TestCacheIsBounded(t *testing.T) {
	s := open(t)
	require.NoError(t, s.SaveFacts("00", 0))
	require.NoError(t, os.WriteFile(s.path(factsDir, "notes.txt"), nil, 0o600))
	for n := range cacheEntries + 20 {
		path := s.path(factsDir, fmt.Sprintf("a%03x.json", n))
		require.NoError(t, os.WriteFile(path, []byte("1"), 0o600))
		at := time.Now().Add(time.Duration(n) * time.Minute) // all later than what is written now
		require.NoError(t, os.Chtimes(path, at, at))
	}
	require.NoError(t, s.SaveFacts("ff", 7))
	entries, err := os.ReadDir(s.path(factsDir))
	require.NoError(t, err)
	require.Len(t, entries, cacheEntries+1)
	require.FileExists(t, s.path(factsDir, "notes.txt"))
	var got int
	require.True(t, s.LoadFacts("ff", &got))
	require.False(t, s.LoadFacts("00", &got))
	require.False(t, s.LoadFacts("a000", &got))
	require.True(t, s.LoadFacts(fmt.Sprintf("a%03x", cacheEntries+19), &got))
}

// recalled is what is remembered of a file.
func recalled(s *Store, path string) (string, bool) {
	f, id, err := openAny(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	return s.recall(path, id)
}
