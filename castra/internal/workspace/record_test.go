package workspace

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRecordRoundTrip(t *testing.T) {
	w := create(t)
	_, err := w.LoadRecord()
	require.ErrorIs(t, err, fs.ErrNotExist)
	want := Record{Project: "demo", Config: "/src/castra.toml", ConfigDigest: "sha256:0", Bootstrap: []string{"web-0=auto"}, Invocation: []string{"up"}, VMs: []string{"web-0"}}
	require.NoError(t, w.SaveRecord(want, []byte("# snapshot")))
	got, err := w.LoadRecord()
	require.NoError(t, err)
	require.False(t, got.Updated.IsZero())
	want.Schema, want.ID, want.Updated = schemaVersion, w.ID, got.Updated
	require.Equal(t, want, *got)
	b, err := os.ReadFile(w.Snapshot())
	require.NoError(t, err)
	require.Equal(t, "# snapshot", string(b))
}

// B7, failure bank 89: the next up rewrites a damaged record and keeps it to be
// looked at.
func TestSaveOverADamagedRecord(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"empty":            func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"null":             func(path string) error { return os.WriteFile(path, []byte("null"), 0o600) },
		"array":            func(path string) error { return os.WriteFile(path, []byte("[]"), 0o600) },
		"no schema":        func(path string) error { return os.WriteFile(path, []byte("{}"), 0o600) },
		"garbage behind":   func(path string) error { return os.WriteFile(path, []byte(`{"schema_version":1}}`), 0o600) },
		"too large":        func(path string) error { return os.WriteFile(path, make([]byte, recordLimit+1), 0o600) },
		"a FIFO":           func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory":      func(path string) error { return os.Mkdir(path, 0o700) },
		"a symlink":        func(path string) error { return os.Symlink("/etc/passwd", path) },
		"dangling symlink": func(path string) error { return os.Symlink("/no/such/file", path) },
	} {
		t.Run(name, func(t *testing.T) {
			w := create(t)
			require.NoError(t, w.MakeDir(w.Metadata()))
			for n := range 2 {
				require.NoError(t, put(w.Record()))
				_, err := w.LoadRecord()
				var re *RecordError
				require.ErrorAs(t, err, &re)
				require.False(t, re.Newer)
				require.NoError(t, w.SaveRecord(Record{Project: "demo"}, nil))
				r, err := w.LoadRecord()
				require.NoError(t, err)
				require.Equal(t, "demo", r.Project)
				_, err = os.Lstat(w.Record() + asideInfix + string(rune('1'+n)))
				require.NoError(t, err)
				require.NoError(t, os.Remove(w.Record()))
			}
			items, err := w.Removable(RemoveOptions{})
			require.NoError(t, err)
			if name == "a directory" {
				require.Empty(t, items, "no record of Castra's was one, whatever it holds")
				return
			}
			require.Len(t, items, 2, "clean removes what was set aside")
		})
	}
}

func TestSaveNotOverANewerRecord(t *testing.T) {
	for _, newer := range []string{`{"schema_version": 2}`, `{"schema_version": 2, "vms": {"web-0": 1}}`} {
		w := create(t)
		require.NoError(t, w.MakeDir(w.Metadata()))
		require.NoError(t, os.WriteFile(w.Record(), []byte(newer), 0o600))
		err := w.SaveRecord(Record{}, []byte("x"))
		var re *RecordError
		require.ErrorAs(t, err, &re)
		require.True(t, re.Newer)
		require.Contains(t, re.Hint(), "later")
		b, err := os.ReadFile(w.Record())
		require.NoError(t, err)
		require.Equal(t, newer, string(b))
		require.NoFileExists(t, w.Snapshot())

		require.NoError(t, os.WriteFile(w.Session(), []byte(newer), 0o600))
		_, err = w.LoadSession()
		require.ErrorAs(t, err, &re)
		require.True(t, re.Newer)
	}
}

func TestAHundredDamagedRecords(t *testing.T) {
	w := create(t)
	require.NoError(t, w.MakeDir(w.Metadata()))
	require.NoError(t, os.WriteFile(w.Record(), nil, 0o600))
	for range asideLimit {
		_, err := w.setAside(w.Record())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(w.Record(), nil, 0o600))
	}
	_, err := w.setAside(w.Record())
	require.ErrorContains(t, err, "mage clean")
}

// B7: whatever befell the records, they are read as records or refused as
// damaged, and no name in them leads out of the workspace.
func TestFlippedBits(t *testing.T) {
	w := create(t)
	s, err := w.LoadSession()
	require.NoError(t, err)
	s.VMs["web-0"] = VM{Name: "web-0", Role: "web", Overlay: Overlay{Path: w.Overlay(w.ID, "web-0")}, Health: "ready"}
	require.NoError(t, w.SaveSession(s))
	require.NoError(t, w.SaveRecord(Record{Project: "demo", VMs: []string{"web-0"}}, nil))
	for path, load := range map[string]func() error{
		w.Record(): func() error { _, err := w.LoadRecord(); return err },
		w.Session(): func() error {
			s, err := w.LoadSession()
			if err != nil {
				return err
			}
			for name := range s.VMs {
				require.Equal(t, filepath.Base(name), name)
			}
			return nil
		},
	} {
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		refused := 0
		for i := range whole {
			for _, damaged := range [][]byte{flip(whole, i, byte(i%8)), whole[:i]} {
				require.NoError(t, os.WriteFile(path, damaged, 0o600))
				if err := load(); err != nil {
					require.ErrorAs(t, err, new(*RecordError))
					refused++
				}
			}
		}
		require.Greater(t, refused, len(whole), "every cut, and of the flips those in what holds the file together")
	}
}

func flip(b []byte, at int, bit byte) []byte {
	out := bytes.Clone(b)
	out[at] ^= 1 << bit
	return out
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"schema_version":1,"vms":{"web-0":{"name":"web-0"}}}`))
	f.Add([]byte(`{"schema_version":1,"vms":{"..":{"name":".."}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &Workspace{Layout{t.TempDir()}, "x-0"}
		require.NoError(t, w.MakeDir(w.Metadata()))
		for _, path := range []string{w.Session(), w.Record()} {
			require.NoError(t, os.WriteFile(path, data, 0o600))
		}
		if s, err := w.LoadSession(); err == nil {
			for _, vm := range s.Names() {
				require.True(t, w.Contains(w.Pidfile(vm)))
				require.True(t, w.Contains(w.Monitor(vm)))
			}
			require.NoError(t, w.SaveSession(s))
			again, err := w.LoadSession()
			require.NoError(t, err)
			require.Equal(t, s.Names(), again.Names())
		}
		_, _ = w.LoadRecord()
	})
}
