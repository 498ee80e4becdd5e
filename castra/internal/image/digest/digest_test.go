package digest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The digests of "hello\n", as sha512sum and sha256sum give them.
const (
	hello512 = "e7c22b994c59d9cf2b48e549b1e24666636045930d3da7c1acb299d1c3b7f931f94aae41edda2c2b207a36e10f8bcb8d45223e54878f5b316e7ce3b6bc019629"
	hello256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
)

func TestParse(t *testing.T) {
	mixed := strings.ToUpper(hello512[:64]) + hello512[64:]
	for name, c := range map[string]struct{ text, algorithm string }{
		"prefix":              {"sha512:" + hello512, SHA512},
		"prefix 256":          {"sha256:" + hello256, SHA256},
		"all upper":           {"SHA512:" + strings.ToUpper(hello512), SHA512},
		"upper hex":           {strings.ToUpper(hello512), SHA512},
		"mixed case":          {mixed, SHA512},
		"bare 512":            {hello512, SHA512},
		"bare 256":            {hello256, SHA256},
		"newline":             {hello512 + "\n", SHA512},
		"CRLF":                {hello512 + "\r\n", SHA512},
		"spaces":              {" \t" + hello512 + "  ", SHA512},
		"byte order mark":     {"\ufeff" + hello512 + "\r\n", SHA512},
		"space after prefix":  {"sha512: " + hello512, SHA512},
		"line":                {hello512 + "  disk.qcow2\n", SHA512},
		"binary line":         {hello512 + " *disk.qcow2\n", SHA512},
		"name with spaces":    {hello512 + "  my disk (1) = x.qcow2\n", SHA512},
		"name with a colon":   {hello512 + "  a:b\n", SHA512},
		"BSD":                 {"SHA512 (disk.qcow2) = " + hello512 + "\n", SHA512},
		"BSD lower":           {"sha256 (disk.qcow2) = " + strings.ToUpper(hello256), SHA256},
		"BSD name in parens":  {"SHA256 (a) = (b) = c) = " + hello256, SHA256},
		"BSD CRLF":            {"SHA512 (disk.qcow2) = " + hello512 + "\r\n", SHA512},
		"BSD name with colon": {"SHA256 (a:b) = " + hello256, SHA256},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse(c.text)
			require.NoError(t, err)
			want := map[string]string{SHA512: hello512, SHA256: hello256}[c.algorithm]
			require.Equal(t, Digest{c.algorithm, want}, d)
			require.Equal(t, c.algorithm+":"+want, d.String())
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"empty":              {"", "empty"},
		"blank":              {" \r\n\t", "empty"},
		"only a mark":        {"\ufeff", "empty"},
		"short":              {hello512[:127], "127 hex digits"},
		"long":               {hello512 + "0", "129 hex digits"},
		"not hex":            {"g" + hello512[1:], "not hex"},
		"NUL":                {hello512 + "\x00", "not hex"},
		"word":               {"verified", "not hex"},
		"page":               {"<!doctype html><title>404</title>", "not hex"},
		"zeros":              {strings.Repeat("0", 128), "zeros"},
		"zeros 256":          {"sha256:" + strings.Repeat("0", 64), "zeros"},
		"prefix alone":       {"sha512:", "not hex"},
		"no prefix":          {":" + hello512, "not hex"},
		"wrong prefix":       {"sha512:" + hello256, "sha512 has 128"},
		"other wrong prefix": {"sha256:" + hello512, "sha256 has 64"},
		"BSD wrong length":   {"SHA512 (x) = " + hello256, "sha512 has 128"},
		"BSD no digest":      {"SHA512 (x) = ", "not hex"},
		"MD5":                {strings.Repeat("ab", 16), "MD5"},
		"SHA-1":              {strings.Repeat("ab", 20), "SHA-1"},
		"SHA-384":            {strings.Repeat("ab", 48), "SHA-384"},
		"unknown":            {"md5:" + strings.Repeat("ab", 16), `"md5" is not known`},
		"two digests":        {hello512 + "\n" + hello512, "more than one line"},
		"old line ends":      {hello512 + "\r" + hello512, "more than one line"},
		"prefix and name":    {"sha512:" + hello512 + "  disk.qcow2", "not hex"},
		"fullwidth":          {"ａ" + hello512[1:], "not hex"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse(c.text)
			var fe *FormatError
			require.ErrorAs(t, err, &fe)
			require.ErrorContains(t, err, c.says)
			require.Contains(t, fe.Hint(), "sha512:")
			require.Equal(t, c.text, fe.Text)
			require.True(t, d.IsZero())
			var mismatch *MismatchError
			require.False(t, errors.As(err, &mismatch))
		})
	}
}

func TestBadTextIsQuotedInShort(t *testing.T) {
	_, err := Parse("\x1b[2J" + strings.Repeat("x", 1<<20))
	require.Less(t, len(err.Error()), 300)
	require.NotContains(t, err.Error(), "\x1b")
}

func FuzzParse(f *testing.F) {
	f.Add(hello512)
	f.Add("sha256:" + hello256)
	f.Add("SHA512 (a) = " + hello512 + "\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Parse(s)
		if err != nil {
			var fe *FormatError
			require.ErrorAs(t, err, &fe)
			require.True(t, d.IsZero())
			require.NotEmpty(t, fe.Error())
			return
		}
		require.Contains(t, []string{SHA512, SHA256}, d.Algorithm)
		raw, err := hex.DecodeString(d.Hex)
		require.NoError(t, err)
		require.Len(t, raw, d.New().Size())
		require.NotEqual(t, make([]byte, len(raw)), raw)
		require.Contains(t, strings.ToLower(s), d.Hex, "the digest stands in the text")
		again, err := Parse(d.String())
		require.NoError(t, err)
		require.Equal(t, d, again)
	})
}

func TestZero(t *testing.T) {
	var d Digest
	require.True(t, d.IsZero())
	require.Empty(t, d.String())
	require.Nil(t, d.New())
	require.Error(t, d.Check("x", d), "not known is never verified")
}

func TestCheck(t *testing.T) {
	want, got := Digest{SHA256, hello256}, Digest{SHA256, hex.EncodeToString(make([]byte, 32))}
	require.NoError(t, want.Check("disk", want))
	err := want.Check("disk", got)
	var mismatch *MismatchError
	require.ErrorAs(t, err, &mismatch)
	require.Equal(t, MismatchError{"disk", got, want}, *mismatch)
	require.ErrorContains(t, err, got.String())
	require.ErrorContains(t, err, want.String())
	require.NotEmpty(t, mismatch.Hint())
	require.Error(t, want.Check("disk", Digest{SHA512, hello256}))
}

func TestFile(t *testing.T) {
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 3*chunk + 17} {
		data := bytes.Repeat([]byte("castra "), size/7+1)[:size]
		path := filepath.Join(t.TempDir(), "disk")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		sum512, sum256 := sha512.Sum512(data), sha256.Sum256(data)
		for algorithm, want := range map[string][]byte{SHA512: sum512[:], SHA256: sum256[:]} {
			var last [2]int64
			d, err := File(t.Context(), path, algorithm, func(done, total int64) { last = [2]int64{done, total} })
			require.NoError(t, err)
			require.Equal(t, Digest{algorithm, hex.EncodeToString(want)}, d)
			require.Equal(t, [2]int64{int64(size), int64(size)}, last)
		}
	}
}

func TestFileRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("hello\n"), 0o600))
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	require.NoError(t, os.Symlink(file, link))
	require.NoError(t, unix.Mkfifo(fifo, 0o600))

	_, err := File(t.Context(), filepath.Join(dir, "none"), SHA512, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = File(t.Context(), link, SHA512, nil)
	require.ErrorIs(t, err, unix.ELOOP)
	_, err = File(t.Context(), fifo, SHA512, nil)
	require.ErrorContains(t, err, "not a regular file")
	_, err = File(t.Context(), dir, SHA512, nil)
	require.ErrorContains(t, err, "not a regular file")
	_, err = File(t.Context(), file, "md5", nil)
	require.ErrorContains(t, err, `"md5" is not known`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = File(ctx, file, SHA512, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestFeedIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n, err := Feed(ctx, sha256.New(), endless{}, func(int64) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, int64(chunk), n)
}

func TestFeedTellsOfABadDisk(t *testing.T) {
	bad := errors.New("input/output error")
	n, err := Feed(t.Context(), sha256.New(), io.MultiReader(strings.NewReader("hello"), broken{bad}), nil)
	require.ErrorIs(t, err, bad)
	require.Equal(t, int64(5), n)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// BenchmarkFile gives the speed beside that of sha512sum and sha256sum on the
// same file: of either the best of b.N rounds that take turns, since other work
// on the machine only ever slows a round down.
func BenchmarkFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "disk")
	const size = 256 << 20
	require.NoError(b, os.WriteFile(path, bytes.Repeat([]byte("castra: "), size/8), 0o600))
	for algorithm, tool := range map[string]string{SHA512: "sha512sum", SHA256: "sha256sum"} {
		b.Run(algorithm, func(b *testing.B) {
			if _, err := exec.LookPath(tool); err != nil {
				b.Skip(err)
			}
			ours, theirs := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			for b.Loop() {
				begin := time.Now()
				_, err := File(b.Context(), path, algorithm, nil)
				require.NoError(b, err)
				ours = min(ours, time.Since(begin))
				begin = time.Now()
				require.NoError(b, exec.CommandContext(b.Context(), tool, path).Run())
				theirs = min(theirs, time.Since(begin))
			}
			b.ReportMetric(size/ours.Seconds()/1e6, "MB/s")
			b.ReportMetric(size/theirs.Seconds()/1e6, tool+"-MB/s")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
		})
	}
}
