package warm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDamaged(t *testing.T) {
	key := some().Key()
	edit := func(from, to string) func(s *Store) error {
		return func(s *Store) error {
			b, err := os.ReadFile(s.path(key, manifestName))
			if err != nil {
				return err
			}
			return os.WriteFile(s.path(key, manifestName), []byte(strings.Replace(string(b), from, to, 1)), 0o600)
		}
	}
	for name, c := range map[string]struct {
		spoil func(s *Store) error
		want  string
	}{
		"truncated":     {func(s *Store) error { return os.Truncate(s.path(key, RAMName), mib) }, "ram has 1048576 bytes"},
		"longer":        {func(s *Store) error { return os.Truncate(s.path(key, DiskName), mib) }, "disk.qcow2 has 1048576 bytes"},
		"missing disk":  {func(s *Store) error { return os.Remove(s.path(key, DiskName)) }, "disk.qcow2 is missing"},
		"missing state": {func(s *Store) error { return os.Remove(s.path(key, StateName)) }, "state is missing"},
		"no manifest":   {func(s *Store) error { return os.Remove(s.path(key, manifestName)) }, "manifest.json is missing"},
		"half manifest": {func(s *Store) error { return os.Truncate(s.path(key, manifestName), 100) }, "manifest.json: unexpected end"},
		"altered, times put back": {func(s *Store) error {
			st, err := os.Stat(s.path(key, StateName))
			if err != nil {
				return err
			}
			if err := os.WriteFile(s.path(key, StateName), []byte("DEVICES"), 0o600); err != nil {
				return err
			}
			return os.Chtimes(s.path(key, StateName), st.ModTime(), st.ModTime())
		}, "state is not what was saved"},
		"manifest of another": {edit(`"memory_mib": 256`, `"memory_mib": 512`), "manifest is of another template"},
		"swapped manifest": {func(s *Store) error {
			if _, err := s.Make(t.Context(), owned("db"), Meta{}, fillRAM); err != nil {
				return err
			}
			return os.Rename(s.path(owned("db").Key(), manifestName), s.path(key, manifestName))
		}, "manifest is of another template"},
		"other format":     {edit(`"format": 1`, `"format": 2`), "format 2"},
		"path in manifest": {edit(`"name": "ram"`, `"name": "../ram"`), "lists the files"},
		"ram alone":        {edit(`"name": "state"`, `"name": "disk.qcow2"`), "lists the files"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			makeIt(t, s, some(), fillRAM)
			require.NoError(t, c.spoil(s))
			for range 2 {
				_, err := s.Find(t.Context(), some())
				var bad *BadError
				require.ErrorAs(t, err, &bad)
				require.Equal(t, key, bad.Key)
				require.Contains(t, bad.Problem, c.want)
				require.NotEmpty(t, bad.Hint())
				_, err = s.Peek(t.Context(), some())
				require.ErrorAs(t, err, &bad)
			}

			require.NoError(t, s.SetAside(key, "restore failed"))
			makeIt(t, s, some(), fillRAM)
			found, err := s.Find(t.Context(), some())
			require.NoError(t, err, "and a new one takes its place")
			found.Release()
		})
	}
}

// A file is read where it is not the one that was seen, or in another boot, and
// then not again.
func TestDigestDecides(t *testing.T) {
	for name, touch := range map[string]func(t *testing.T, s *Store) *Store{
		"cp -a": func(t *testing.T, s *Store) *Store {
			home := filepath.Dir(s.dir)
			require.NoError(t, exec.Command("cp", "-a", home, home+"2").Run())
			other, err := Open(home + "2")
			require.NoError(t, err)
			return other
		},
		"rewritten": func(t *testing.T, s *Store) *Store {
			require.NoError(t, os.WriteFile(s.path(some().Key(), StateName), []byte("devices"), 0o600))
			return s
		},
		"another boot": func(t *testing.T, s *Store) *Store {
			var old seen
			require.NoError(t, readJSON(s.path(some().Key(), seenName), &old))
			old.Boot = "another"
			require.NoError(t, writeJSON(s.path(some().Key(), seenName), old))
			return s
		},
		"nothing seen": func(t *testing.T, s *Store) *Store {
			require.NoError(t, os.Remove(s.path(some().Key(), seenName)))
			return s
		},
		"corrupt": func(t *testing.T, s *Store) *Store {
			require.NoError(t, os.WriteFile(s.path(some().Key(), seenName), []byte("{"), 0o600))
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			makeIt(t, s, some(), fillRAM)
			s = touch(t, s)
			manifest, err := os.Stat(s.path(some().Key(), manifestName))
			require.NoError(t, err)
			require.Positive(t, hashes(t, s), "it was read")
			peeked, err := s.Peek(t.Context(), some())
			require.NoError(t, err)
			require.Equal(t, s.path(some().Key()), peeked.Dir)
			require.Positive(t, hashes(t, s), "peeking notes nothing")
			found, err := s.Find(t.Context(), some())
			require.NoError(t, err)
			defer found.Release()
			require.Zero(t, hashes(t, s))
			after, err := os.Stat(s.path(some().Key(), manifestName))
			require.NoError(t, err)
			require.True(t, os.SameFile(manifest, after), "the lock of others stays good")
		})
	}
}

// hashes counts the files that are not believed unread.
func hashes(t *testing.T, s *Store) (n int) {
	tpl := &Template{Dir: s.path(some().Key()), Key: some().Key()}
	require.NoError(t, tpl.open(t.Context(), false))
	defer tpl.Release()
	var old seen
	_ = readJSON(filepath.Join(tpl.Dir, seenName), &old)
	for _, f := range tpl.Manifest.Files {
		id, ok := old.Files[f.Name]
		_, hashed, err := tpl.verifyFile(t.Context(), f, id, ok && old.Boot == bootID(t))
		require.NoError(t, err)
		if hashed {
			n++
		}
	}
	return n
}

// A look that is broken off says nothing against the template.
func TestFindIsCancelled(t *testing.T) {
	s := open(t)
	info := makeIt(t, s, some(), fillRAM)
	require.NoError(t, os.Remove(s.path(info.Key, seenName))) // so that the files are read
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Find(ctx, some())
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorAs(t, err, new(*BadError))
	_, err = s.Digest(ctx, s.path(info.Key, DiskName))
	require.ErrorIs(t, err, context.Canceled)
	tpl, err := s.Find(t.Context(), some())
	require.NoError(t, err)
	tpl.Release()
}
