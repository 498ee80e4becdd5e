package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestArchive(t *testing.T) {
	data, err := archive([]file{{name: "a/b/c", text: "text"}, {name: "a/b/d", link: "/dev/null"}, {name: "e", text: ""}})
	require.NoError(t, err)
	var got []string
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Zero(t, h.Uid+h.Gid)
		got = append(got, strings.Join([]string{string(h.Typeflag), h.Name, h.FileInfo().Mode().Perm().String(), string(text), h.Linkname}, " "))
	}
	require.Equal(t, []string{
		"5 a/ -rwxr-xr-x  ", "5 a/b/ -rwxr-xr-x  ", "0 a/b/c -rw-r--r-- text ", "2 a/b/d -rw-r--r--  /dev/null", "0 e -rw-r--r--  ",
	}, got)
}

// A guest is whole when manifest and disk agree.
func TestLookup(t *testing.T) {
	home := t.TempDir()
	g, ok := lookup(home, "12")
	require.False(t, ok)
	require.Equal(t, filepath.Join(home, "guests", "debian-12-"+recipeDigest()[:12], "disk.qcow2"), g.Disk)
	require.NoError(t, os.MkdirAll(g.Dir, 0o700))
	for _, c := range []struct {
		manifest, disk string
		ok             bool
	}{
		{`{"bytes": 4}`, "disk", true}, {`{"bytes": 5}`, "disk", false}, {`{"bytes": 0}`, "", false}, {`{`, "disk", false},
	} {
		require.NoError(t, os.WriteFile(g.Manifest, []byte(c.manifest), 0o600))
		require.NoError(t, os.WriteFile(g.Disk, []byte(c.disk), 0o600))
		_, ok = lookup(home, "12")
		require.Equal(t, c.ok, ok, c)
	}
	require.NoError(t, os.Remove(g.Disk))
	_, ok = lookup(home, "12")
	require.False(t, ok)
}

// One build at a time; what a killed one left goes, and nothing else.
func TestLockAndLeftovers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, lockName)
	unlock, err := lock(t.Context(), path, io.Discard)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var log bytes.Buffer
	_, err = lock(ctx, path, &log)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Contains(t, log.String(), "waiting for another build")
	unlock()
	unlock, err = lock(t.Context(), path, io.Discard)
	require.NoError(t, err)
	unlock()

	for _, name := range []string{workPrefix + "17/tree/etc", "debian-12-0123/x", "small-build-3"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
	}
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	require.NoError(t, removeLeftovers(root))
	require.NoDirExists(t, filepath.Join(dir, workPrefix+"17"))
	require.DirExists(t, filepath.Join(dir, "debian-12-0123"))
	require.DirExists(t, filepath.Join(dir, "small-build-3"))
}

func TestReadStatus(t *testing.T) {
	status := "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nDescription: x\n Package: no\n\nPackage: b\nVersion: 4\n"
	got, err := readStatus(fstest.MapFS{"var/lib/dpkg/status": {Data: []byte(status)}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "1:2-3", "b": "4"}, got)
	_, err = readStatus(fstest.MapFS{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestPut(t *testing.T) {
	dir := t.TempDir()
	image := make([]byte, 3<<20+512)
	copy(image[2<<20:], "in the third block")
	copy(image[3<<20:], "at the end")
	from, to := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	require.NoError(t, os.WriteFile(from, image, 0o600))
	require.NoError(t, blank(to, 8<<20/sectorSize))
	disk, err := os.OpenFile(to, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer disk.Close()
	require.NoError(t, put(disk, from, espStart))
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	want := make([]byte, 8<<20)
	copy(want[espStart*sectorSize:], image)
	require.True(t, bytes.Equal(want, got))
	require.Zero(t, rootStart%2048, "aligned to 1 MiB")
	require.Zero(t, rootSectors%8, "whole blocks of 4 KiB")
}
