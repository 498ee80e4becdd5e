package workspace

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What was left in the place of the lock, or of a log, is not written to where
// it is another's file too, and nobody waits for it.
func TestLockAndLogsOfAnother(t *testing.T) {
	for name, put := range map[string]func(canary, path string) error{
		"symlink": os.Symlink, "hard link": os.Link,
		"FIFO": func(_, path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			w := create(t)
			canary := filepath.Join(t.TempDir(), "canary")
			require.NoError(t, os.WriteFile(canary, []byte("dear"), 0o600))
			for _, path := range []string{w.Layout.Lock(), w.EventLog()} {
				require.NoError(t, put(canary, path))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			unlock, err := w.Lock(ctx, "mage down", func(Holder) {})
			if name == "hard link" { // as in a copy of the workspace by hard links, which must go down all the same
				require.NoError(t, err)
				unlock()
			} else {
				require.ErrorAs(t, err, new(*PreflightError))
			}
			require.NoError(t, os.MkdirAll(w.Metadata(), 0o700))
			require.NoError(t, put(canary, w.Asked()))
			w.AskDown("mage down")
			_, err = w.AppendLog(w.EventLog())
			require.ErrorContains(t, err, "move it away")
			text, err := os.ReadFile(canary)
			require.NoError(t, err)
			require.Equal(t, "dear", string(text))
		})
	}
}

// C3: the number of an inode is given again, so it alone does not tell that a
// file is ours.
func TestMadeIsToldByBirth(t *testing.T) {
	file := filepath.Join(t.TempDir(), "o.qcow2")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	id, err := Identify(file)
	require.NoError(t, err)
	if id.Born == 0 {
		t.Skip("this file system does not keep when a file was made")
	}
	id.Born-- // as of the file that had the inode before
	_, err = RemoveMade(file, id)
	require.ErrorContains(t, err, "not the file Castra made")
	require.FileExists(t, file)
}
