package warm

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a killed command was writing goes at the next sweep; what is being
// written stays.
func TestSweepRemovesWhatWasStaged(t *testing.T) {
	s, err := Open(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, s.SaveFacts("0123456789abcdef", 1))
	require.NoError(t, s.Sweep())
	left, theirs := s.path(factsDir, ".tmp-17"), s.path(factsDir, ".tmp-x")
	for _, path := range []string{left, theirs} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	f, err := stageFile(s.path(factsDir))
	require.NoError(t, err)
	require.NoError(t, s.Sweep())
	require.NoFileExists(t, left)
	require.FileExists(t, theirs)
	require.FileExists(t, f.Name(), "it is locked")
	unlock(f)
	require.NoError(t, s.Sweep())
	require.NoFileExists(t, f.Name())
	require.True(t, s.LoadFacts("0123456789abcdef", new(int)))
}

// Sweeps take nothing away from those who write.
func TestWriteWhileOthersSweep(t *testing.T) {
	s, err := Open(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, s.SaveFacts("00", 0))
	var writing, sweeping sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		sweeping.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = s.Sweep()
				}
			}
		})
	}
	faults := make([]error, 4)
	for i := range faults {
		writing.Go(func() {
			for n := range 100 {
				if err := s.SaveFacts(fmt.Sprintf("%02x", i), n); err != nil {
					faults[i] = err
					return
				}
			}
		})
	}
	writing.Wait()
	close(done)
	sweeping.Wait()
	for _, err := range faults {
		require.NoError(t, err)
	}
	left, err := filepath.Glob(s.path(factsDir, ".tmp-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
