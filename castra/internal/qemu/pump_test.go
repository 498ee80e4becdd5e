package qemu

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const kib = 1 << 10

// pumping is a pump into a log of that name in a directory of its own.
func pumping(t *testing.T, name string, limit int) (p *pump, log string) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	log = filepath.Join(t.TempDir(), name)
	p, err := startPump(t.Context(), log, limit)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.in.Close()
		ended(t, p)
	})
	return p, log
}

func ended(t *testing.T, p *pump) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		require.FailNow(t, "the pump does not end")
	}
}

// write gives up where the pump does not take it.
func (p *pump) write(t *testing.T, text string) {
	t.Helper()
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(p.in, text)
		written <- err
	}()
	select {
	case err := <-written:
		require.NoError(t, err)
	case <-time.After(patience):
		p.in.Close()
		require.FailNow(t, "the writer is held up")
	}
}

// numbered are n lines of 16 bytes.
func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%015d\n", i)
	}
	return b.String()
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	return st.Size()
}

// reads waits until the log holds text.
func reads(t *testing.T, log, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, _ := os.ReadFile(log)
		return string(got) == text
	}, patience, 5*time.Millisecond)
}

// What is written is in the log at once, with no line end to wait for, and all of it; bytes are not looked at.
func TestPumpIsPrompt(t *testing.T) {
	p, log := pumping(t, "a.log", 64*kib)
	p.write(t, "login: ")
	reads(t, log, "login: ")
	p.write(t, "root\r\n\x00\x1b[31m\xff")
	reads(t, log, "login: root\r\n\x00\x1b[31m\xff")
	require.NoFileExists(t, log+".1")
	p.in.Close()
	ended(t, p)
	st, err := os.Stat(log)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())
}

// F-1: two files of the limit at most, however much is written, the newest lines, in their order.
func TestPumpKeepsLogsShort(t *testing.T) {
	const limit, lines = 128 * kib, 300 * kib / 16
	p, log := pumping(t, "a.log", limit)
	p.write(t, numbered(lines))
	p.in.Close()
	ended(t, p)
	require.EqualValues(t, limit, size(t, log+".1"))
	require.LessOrEqual(t, size(t, log), int64(limit))
	entries, err := os.ReadDir(filepath.Dir(log))
	require.NoError(t, err)
	require.Len(t, entries, 2)
	for _, name := range entries {
		require.Equal(t, os.FileMode(0o600), must(name.Info()).Mode())
	}
	kept, last := 0, -1
	for _, path := range []string{log + ".1", log} {
		for line := range bytes.Lines(must(os.ReadFile(path))) {
			var n int
			if _, err := fmt.Sscanf(string(line), "%d\n", &n); err != nil || len(line) != 16 {
				continue // cut where the log was set aside
			}
			require.Greater(t, n, last)
			kept, last = kept+1, n
		}
	}
	require.Equal(t, lines-1, last)
	lost := 300*kib - (2 * limit) + 8*kib // the first file, and a page at each of two turns
	require.GreaterOrEqual(t, kept, (300*kib-max(lost, limit+8*kib))/16)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A log that is there is gone on with, also a long one.
func TestPumpGoesOnWithALog(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	for _, c := range []struct{ had, log, aside string }{
		{"old\n", "old\nnew\n", ""},
		{strings.Repeat("x", 4*kib), "new\n", strings.Repeat("x", 4*kib)},
	} {
		require.NoError(t, os.WriteFile(log, []byte(c.had), 0o600))
		p, err := startPump(t.Context(), log, 4*kib)
		require.NoError(t, err)
		p.write(t, "new\n")
		if c.aside != "" { // the one that did not fit is lost
			require.Eventually(t, func() bool { _, err := os.Stat(log + ".1"); return err == nil }, patience, 5*time.Millisecond)
			p.write(t, "new\n")
		}
		reads(t, log, c.log)
		p.in.Close()
		ended(t, p)
		if c.aside != "" {
			require.Equal(t, c.aside, string(must(os.ReadFile(log+".1"))))
		}
	}
}

// E2: a path is a path, whatever it holds.
func TestPumpTakesOddPaths(t *testing.T) {
	for _, name := range []string{"a b", "$(touch made)", "`touch made`", `"'`, "-n", ";touch made", "a\nb", "*", `\`, "größe-盘", "~", "&", "if=x"} {
		t.Run(name, func(t *testing.T) {
			p, log := pumping(t, name, 4*kib)
			p.write(t, strings.Repeat("x", 6*kib))
			p.in.Close()
			ended(t, p)
			require.EqualValues(t, 4*kib, size(t, log+".1"))
			entries, err := os.ReadDir(filepath.Dir(log))
			require.NoError(t, err)
			require.LessOrEqual(t, len(entries), 2)
		})
	}
}

// A log that cannot be made is told of before QEMU runs.
func TestPumpWithoutALog(t *testing.T) {
	_, err := startPump(t.Context(), filepath.Join(t.TempDir(), "none", "a.log"), 4*kib)
	require.ErrorIs(t, err, os.ErrNotExist)
	s := defaultSpec()
	s.SerialLog = filepath.Join(t.TempDir(), "none", "a.log")
	_, err = Start(t.Context(), s, filepath.Join(t.TempDir(), "qemu.log"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, s.SerialLog)
}
