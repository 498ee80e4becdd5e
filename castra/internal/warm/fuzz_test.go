package warm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzManifest: a manifest that anything has befallen is of the template of its key, with files that a template may have, or is refused.
func FuzzManifest(f *testing.F) {
	whole, err := json.Marshal(Manifest{Format: format, Ingredients: some(), Files: []File{{Name: DiskName, Bytes: 10}}})
	require.NoError(f, err)
	for _, b := range [][]byte{whole, whole[:len(whole)/2], append(whole, whole...), nil, []byte("null"), []byte("[]"), []byte(`{"format":1,"files":[{"name":"../../x"}]}`), []byte(`{"format":1e99}`)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &Store{filepath.Join(t.TempDir(), "templates")}
		key := some().Key()
		require.NoError(t, os.MkdirAll(s.path(key), 0o700))
		require.NoError(t, os.WriteFile(s.path(key, manifestName), data, 0o600))
		require.NoError(t, os.WriteFile(s.path(key, DiskName), []byte("QFI\xfb disk!"), 0o600))
		template, err := s.Find(t.Context(), some())
		if err == nil {
			require.Equal(t, key, template.Manifest.Ingredients.Key())
			require.FileExists(t, template.Disk())
			require.Equal(t, s.path(key), filepath.Dir(template.Disk()))
			template.Release()
		}
		var m Manifest
		if json.Unmarshal(data, &m) == nil && m.problem(key) == "" {
			for _, file := range m.Files {
				require.Contains(t, known, file.Name)
			}
		}
		all, err := s.All()
		require.NoError(t, err)
		require.Len(t, all, 1, "what it holds is listed, to be removed")
	})
}

// FuzzFacts: what is remembered of a QEMU is remembered whole, or not at all.
func FuzzFacts(f *testing.F) {
	for _, s := range []string{`{"version":"7.2","machine":"q35","cpu":"max"}`, "", "null", "{", `{"version":1}`, `{"identity":{},"digest":"sha256:x"}`} {
		f.Add([]byte(s))
	}
	type facts struct{ Version, Machine, CPU string }
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &Store{filepath.Join(t.TempDir(), "templates")}
		require.NoError(t, s.SaveFacts("0a", facts{"1", "2", "3"}))
		require.NoError(t, os.WriteFile(s.path(factsDir, "0a.json"), data, 0o600))
		var got facts
		if s.LoadFacts("0a", &got) {
			require.NoError(t, json.Unmarshal(data, &facts{}))
		}
		require.NoError(t, s.SaveFacts("0a", facts{"1", "2", "3"}))
		require.True(t, s.LoadFacts("0a", &got))
		require.Equal(t, facts{"1", "2", "3"}, got)
		require.Error(t, s.SaveFacts("../0a", nil))
	})
}
