package guest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func packed(f *testing.F, headers ...*tar.Header) []byte {
	f.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		h.Mode |= 0o600
		require.NoError(f, w.WriteHeader(h))
		_, err := w.Write([]byte("data")[:h.Size])
		require.NoError(f, err)
	}
	require.NoError(f, w.Close())
	return b.Bytes()
}

// FuzzTar: whatever archive a guest sends, nothing outside the directory is touched, no link in it leads out, and no device,
// pipe or setuid file is made.
func FuzzTar(f *testing.F) {
	file := func(name string) *tar.Header { return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o4755} }
	link := func(name, to string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	f.Add(packed(f, &tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, file("d/f"), link("d/l", "f"), link("d/d/l", "../f"), &tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "d/f"}))
	f.Add(packed(f, link("l", "../canary"), file("l")))
	f.Add(packed(f, link("l", ".."), file("l/canary")))
	f.Add(packed(f, &tar.Header{Typeflag: tar.TypeDir, Name: "d"}, link("d/top", ".."), link("l", "d/top/.."), file("l/canary")))
	f.Add(packed(f, file("../canary")))
	f.Add(packed(f, &tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../canary"}, file("h")))
	f.Add(packed(f, &tar.Header{Typeflag: tar.TypeFifo, Name: "p"}, &tar.Header{Typeflag: tar.TypeChar, Name: "c"}))
	f.Add(packed(f, file(strings.Repeat("long/", 60)+"f"), file("."), link(".", "x")))
	f.Fuzz(func(t *testing.T, archive []byte) {
		if len(archive) > 64<<10 {
			return
		}
		parent := t.TempDir()
		canary, inside := filepath.Join(parent, "canary"), filepath.Join(parent, "to")
		require.NoError(t, os.WriteFile(canary, []byte("safe"), 0o600))
		require.NoError(t, os.Mkdir(inside, 0o700))
		root, err := os.OpenRoot(inside)
		require.NoError(t, err)
		defer root.Close()
		to := &target{root: root, moved: (&Client{}).counter()}
		defer to.moved.end()
		for in := tar.NewReader(bytes.NewReader(archive)); ; {
			header, err := in.Next()
			if err != nil || header.Size > 1<<20 { // of a sparse file, which may be of any size: what it takes is bounded by the disk
				break
			}
			if to.add(header, in) != nil {
				break
			}
		}
		_ = to.finish()
		requireInside(t, parent, canary, inside)
	})
}

func requireInside(t *testing.T, parent, canary, inside string) {
	t.Helper()
	data, err := os.ReadFile(canary)
	require.NoError(t, err)
	require.Equal(t, "safe", string(data))
	outside, err := os.ReadDir(parent)
	require.NoError(t, err)
	require.Len(t, outside, 2)
	require.NoError(t, filepath.WalkDir(inside, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a directory without the right to read it
		}
		info, err := d.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode()&(os.ModeDevice|os.ModeNamedPipe|os.ModeSocket|os.ModeSetuid|os.ModeSetgid|os.ModeSticky), path)
		if at, err := filepath.EvalSymlinks(path); err == nil {
			require.True(t, at == inside || strings.HasPrefix(at, inside+"/"), "%s leads to %s", path, at)
		}
		return nil
	}))
	st, err := os.Stat(canary)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())
}

// FuzzFields: a listing of a guest without tar has whole entries of bounded length, or is an error.
func FuzzFields(f *testing.F) {
	f.Add([]byte("f\x00644\x00./a\x00\x00d\x00755\x00./b\x00\x00"))
	f.Add([]byte("f\x00644\x00./a"))
	f.Add([]byte(strings.Repeat("x", fieldMax+1)))
	f.Add([]byte("l\x00777\x00../../x\x00/etc/passwd\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, read := bufio.NewReader(bytes.NewReader(data)), 0
		for {
			fields, err := readFields(in)
			if err != nil {
				require.True(t, !errors.Is(err, io.EOF) || read == len(data), "the end is between entries")
				return
			}
			for _, field := range fields {
				require.LessOrEqual(t, len(field), fieldMax)
				require.Equal(t, field, string(data[read:read+len(field)]))
				read += len(field) + 1
			}
			if local, err := (&target{}).local(fields[2]); err == nil {
				require.True(t, filepath.IsLocal(local))
			}
		}
	})
}

// FuzzQuote: byte for byte through the shell that reads our command lines.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "'", "''", `'\''`, "$HOME", "`id`", "a\nb", "-n", "\\", "é\u202e\xff", "!x", "~", "*", "a=b", "\x01\x7f"} {
		f.Add(s, s+s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a)+len(b) > 64<<10 || strings.ContainsRune(a+b, 0) {
			return
		}
		const script = `printf '%s\0' "$@"`
		out, err := exec.CommandContext(t.Context(), "sh", "-c", Sh(script, a, b)).Output()
		require.NoError(t, err)
		require.Equal(t, a+"\x00"+b+"\x00", string(out))
	})
}

// FuzzMode: the first line of a file that is sent is its mode, or nothing is written.
func FuzzMode(f *testing.F) {
	for _, s := range []string{"644\ndata", "4755\n", "worse\n", "", "\n", "-1\n", "777777777777\n", "644", "+644\nx", "0x1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		defer root.Close()
		to := &target{root: root, moved: (&Client{}).counter()}
		defer to.moved.end()
		if err := takeFile(bytes.NewReader(data), "x", to, "f"); err != nil {
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries)
			return
		}
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		mode, err := strconv.ParseUint(strings.TrimSpace(string(line)), 8, 16)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, "f"))
		require.NoError(t, err)
		require.Equal(t, string(rest), string(got))
		st, err := os.Stat(filepath.Join(dir, "f"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(mode)&os.ModePerm, st.Mode())
	})
}
