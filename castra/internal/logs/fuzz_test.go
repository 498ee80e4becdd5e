package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzTail: of whatever stands in a log, the last lines are those of all of it, in whatever pieces it was written.
func FuzzTail(f *testing.F) {
	for _, s := range []string{"", "\n", "a\nb\nc", "a\r\nb\r\n", "\x00\x00\na\n", "\n\n\n", strings.Repeat("x", lineMax+1) + "\ny\n", "\x1b[2Jlogin: ", "a\rb\n"} {
		f.Add([]byte(s), uint8(2), uint16(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, n uint8, chunk uint16) {
		path := filepath.Join(t.TempDir(), "log")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		all, err := Tail(path, 1<<20)
		require.NoError(t, err)
		last, err := Tail(path, int(n))
		require.NoError(t, err)
		if len(data) < reach && !bytes.Contains(data, []byte{0}) { // a hole of NULs before the last line may be a line of its own
			require.True(t, slices.Equal(all[max(0, len(all)-int(n)):], last), "%q, of %q", last, all)
		}
		var pieces []string
		split := splitter{line: func(text string) { pieces = append(pieces, text) }}
		for piece := range slices.Chunk(data, int(chunk)+1) {
			_, _ = split.Write(piece)
		}
		split.flush()
		require.Equal(t, all, pieces)
		for _, line := range all {
			require.LessOrEqual(t, len(line), lineMax+2*len(cut))
			require.NotContains(t, line, "\n")
			require.NotContains(t, line, "\x00")
		}
	})
}
