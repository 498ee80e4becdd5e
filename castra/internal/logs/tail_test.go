package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func write(t testing.TB, content string) string {
	path := filepath.Join(t.TempDir(), "web-0.log")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestTail(t *testing.T) {
	full := strings.Repeat("x", lineMax)
	far := strings.Repeat("x", reach)
	short := strings.Repeat(strings.Repeat("x", 999)+"\n", 9999)
	for name, tc := range map[string]struct {
		content string
		lines   int
		want    []string
	}{
		"empty":                  {"", 5, nil},
		"no lines wanted":        {"a\n", 0, nil},
		"negative":               {"a\n", -1, nil},
		"one line":               {"a\n", 5, []string{"a"}},
		"unfinished line":        {"a\nb", 5, []string{"a", "b"}},
		"unfinished line alone":  {"a\nb", 1, []string{"b"}},
		"last two":               {"a\nb\nc\n", 2, []string{"b", "c"}},
		"all of them":            {"a\nb\nc\n", 3, []string{"a", "b", "c"}},
		"blank lines count":      {"a\n\n\n", 2, []string{"", ""}},
		"blank line first":       {"\na\n", 5, []string{"", "a"}},
		"only a line end":        {"\n", 5, []string{""}},
		"serial line ends":       {"a\r\nb\r\r\n", 5, []string{"a", "b"}},
		"carriage return inside": {"10%\r20%\n", 5, []string{"10%\r20%"}},
		"hole of NULs":           {"\x00\x00\x00boot\nok\n", 5, []string{"boot", "ok"}},
		"only NULs":              {strings.Repeat("\x00", 2*chunk), 5, nil},
		"longest line":           {full + "\nb\n", 5, []string{full, "b"}},
		"longer line":            {full + "end\nb\n", 5, []string{full + "...", "b"}},
		"longer, unfinished":     {"a\n" + full + "end", 5, []string{"a", full + "..."}},
		"line out of reach":      {"begin" + far + "\nb\n", 5, []string{"..." + full + "...", "b"}},
		"line end out of reach":  {"a\n" + far[:reach-2] + "\nb\n", 5, []string{"..." + full + "...", "b"}},
		"line just in reach":     {"a\n" + far[:reach-3] + "\nb\n", 5, []string{full + "...", "b"}},
		"many lines":             {short, 4000, strings.Split(short[:4000*1000-1], "\n")},
		"line as long as chunk":  {"a\n" + full[:chunk-1] + "\nb\n", 2, []string{full[:chunk-1], "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Tail(write(t, tc.content), tc.lines)
			require.NoError(t, err)
			require.True(t, slices.Equal(tc.want, got), "%d lines: %.200q", len(got), got)
		})
	}
}

func TestTailMissing(t *testing.T) {
	got, err := Tail(filepath.Join(t.TempDir(), "no", "such.log"), 5)
	require.NoError(t, err)
	require.Nil(t, got)
}

func TestTailRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	require.NoError(t, os.Symlink(write(t, "secret\n"), link))
	for _, path := range []string{dir, fifo, link} {
		got, err := Tail(path, 5)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, "regular file")
		require.Nil(t, got)
	}
}

// A 2 GiB sparse log, and a 50 MB line, cost no more memory than a small one.
func TestTailIsBounded(t *testing.T) {
	sparse := write(t, "first\n")
	require.NoError(t, os.Truncate(sparse, 2<<30))
	f, err := os.OpenFile(sparse, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString("after the hole\nlast\n")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	long := write(t, strings.Repeat("y", 50<<20)+"\nlast\n")

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := Tail(sparse, 3)
	require.NoError(t, err)
	require.Equal(t, []string{"...after the hole", "last"}, got)
	got, err = Tail(long, 3)
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	require.Len(t, got, 2)
	require.True(t, strings.HasPrefix(got[0], "...y"))
	require.Equal(t, "last", got[1])
	require.LessOrEqual(t, len(got[0]), lineMax+2*len(cut))
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16*chunk))
}

// Tail is the last n elements of the lines written.
func TestTailProperty(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		written := rapid.SliceOfN(rapid.StringMatching(`[a-z ]{0,20}`), 1, 30).Draw(rt, "lines")
		n := rapid.IntRange(1, 40).Draw(rt, "n")
		path := filepath.Join(dir, fmt.Sprint(len(written)))
		require.NoError(rt, os.WriteFile(path, []byte(strings.Join(written, "\n")+"\n"), 0o600))
		got, err := Tail(path, n)
		require.NoError(rt, err)
		require.Equal(rt, written[max(0, len(written)-n):], got)
	})
}
