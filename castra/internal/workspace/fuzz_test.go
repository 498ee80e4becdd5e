package workspace

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzIndex: an entry of the index tells of the one place that its name is a hash of, or of nothing.
func FuzzIndex(f *testing.F) {
	const root = "/srv/state"
	for _, s := range []string{
		`{"schema_version":1,"root":"/srv/state","id":"demo-0a"}`, `{"schema_version":1,"root":"/srv/state/../x","id":"demo-0a"}`, `{"schema_version":1,"root":"/srv/state","id":"../x"}`,
		`{"schema_version":2}`, `{"schema_version":1,"root":1}`, "", "null", "[]", `{"schema_version":1,"root":"/srv/state/","id":"a"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		home := t.TempDir()
		require.NoError(t, os.Mkdir(indexDir(home), 0o700))
		file := indexFile(home, root)
		require.NoError(t, os.WriteFile(file, data, 0o600))
		if e, err := readIndexed(file); err == nil {
			require.Equal(t, root, filepath.Clean(e.Root))
			require.True(t, validID.MatchString(e.ID))
		}
		all, err := All(home)
		require.NoError(t, err)
		require.LessOrEqual(t, len(all), 1)
		require.NoError(t, heal(home))
	})
}

// FuzzMarker: a marker names a workspace by an ID that is a plain file name, or there is no workspace.
func FuzzMarker(f *testing.F) {
	w := &Workspace{Layout{f.TempDir()}, "demo-0a"}
	made, err := Create(w.Root, w.ID)
	require.NoError(f, err)
	whole, err := os.ReadFile(filepath.Join(made.Root, markerName))
	require.NoError(f, err)
	for _, s := range []string{string(whole), strings.Replace(string(whole), "demo-0a", "../x", 1), strings.TrimSpace(string(whole)), string(whole) + "x", "", "\x00", strings.ToUpper(string(whole))} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		root := t.TempDir()
		require.NoError(t, os.Chmod(root, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(root, markerName), data, 0o600))
		w, err := Open(root)
		if err != nil {
			return
		}
		require.True(t, validID.MatchString(w.ID), "%q", w.ID)
		require.Contains(t, string(data), w.ID)
	})
}

// FuzzHolder: the word of who holds a lock is shown on one line and without what steers a terminal, whoever wrote it.
func FuzzHolder(f *testing.F) {
	for _, s := range []string{`{"pid":1,"command":"mage up","since":"2026-01-01T00:00:00Z"}`, `{"pid":-1,"command":"\u001b[2J\n\u202e"}`, "", "null", "x", `{"pid":1e9}`, `{"since":"9999-99-99"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &Workspace{Layout{t.TempDir()}, "x-0"}
		require.NoError(t, os.WriteFile(w.Layout.Lock(), data, 0o600))
		told := fmt.Sprint(w.holder())
		require.False(t, strings.ContainsAny(told, "\x1b\n\r\u202e\x00\u0085"), "%q", told)
	})
}

// FuzzID: whatever a project is called, its workspace's ID is one plain file name of bounded length.
func FuzzID(f *testing.F) {
	for _, s := range []string{"demo", "..", "/", "größe", "日本", "A B", "-", strings.Repeat("x", 300), "a\x00b", "x-" + strings.Repeat("-", 50)} {
		f.Add(s, "/srv/"+s)
	}
	f.Fuzz(func(t *testing.T, name, dir string) {
		id := ID(name, dir)
		require.True(t, validID.MatchString(id), "%q", id)
		require.LessOrEqual(t, len(id), slugLength+1+hashLength)
		require.Equal(t, id, filepath.Base(id))
	})
}
