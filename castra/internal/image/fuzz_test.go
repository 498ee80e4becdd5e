package image

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/digest"
	"castra.example/castra/castra/internal/image/unpack"
	"castra.example/castra/castra/internal/qemutest"
)

// What is taken as a qcow2 names no other file, and its tables are in the file.
func FuzzParseHeader(f *testing.F) {
	f.Add(header(), int64(2048))
	f.Add(header()[:72], int64(72))
	f.Add(with(func(b []byte) { binary.BigEndian.PutUint32(b[4:], 2) }), int64(1<<40))
	for _, c := range qemutest.HostileImages("/etc/shadow") {
		if len(c.Data) < 4096 {
			f.Add(c.Data, int64(len(c.Data)))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		info, err := parseHeader(b[:min(len(b), maxHeader)], size)
		if err != nil {
			return
		}
		be, file := binary.BigEndian, uint64(size)
		cluster := uint64(1) << be.Uint32(b[20:])
		for _, table := range []struct{ off, bytes uint64 }{
			{be.Uint64(b[40:]), 8 * uint64(be.Uint32(b[36:]))}, {be.Uint64(b[48:]), cluster * uint64(be.Uint32(b[56:]))}, {be.Uint64(b[64:]), 40 * uint64(be.Uint32(b[60:]))},
		} {
			if table.bytes > 32<<20 || table.bytes > 0 && (table.off > file || table.off+table.bytes > file) {
				t.Fatalf("a table of %d bytes at %d in a file of %d", table.bytes, table.off, size)
			}
		}
		switch {
		case info.VirtualSize == 0 || info.VirtualSize > maxVirtualSize:
			t.Fatalf("accepted a disk of %d bytes", info.VirtualSize)
		case be.Uint64(b[8:]) != 0 || be.Uint32(b[32:]) != 0:
			t.Fatal("accepted a backing file or a key")
		case info.Version == 3 && be.Uint64(b[72:])&^0b11011 != 0:
			t.Fatalf("accepted the features %#x", be.Uint64(b[72:]))
		}
	})
}

// A file of any contents is refused by a *FormatError, or is a disk of its own format.
func FuzzInspect(f *testing.F) {
	for _, c := range qemutest.HostileImages("/etc/shadow") {
		f.Add(c.Data[:min(len(c.Data), 1024)])
	}
	f.Add(rawDisk(nil)[:1024])
	path := filepath.Join(f.TempDir(), "disk")
	f.Fuzz(func(t *testing.T, b []byte) {
		require.NoError(t, os.WriteFile(path, b, 0o600))
		info, err := Inspect(path)
		switch {
		case err != nil:
			require.ErrorAs(t, err, new(*FormatError))
		case info.Format == FormatRaw:
			require.EqualValues(t, len(b), info.VirtualSize)
			require.Zero(t, len(b)%sector)
			require.Equal(t, unpack.None, unpack.Detect(b))
			require.False(t, strings.HasPrefix(string(b), "QFI\xfb"))
		default:
			require.Equal(t, FormatQcow2, info.Format)
			require.True(t, strings.HasPrefix(string(b), "QFI\xfb"))
		}
	})
}

// Facts are of the image that is asked for, and name a disk beside them.
func FuzzFacts(f *testing.F) {
	of := sumOf([]byte("a disk"))
	good := facts{Format: factsFormat, URL: "https://h/disk", Digest: of.String(), Disk: diskFacts{"disk.qcow2", FormatQcow2, of.String(), 5, 5}, Checked: &checked{Boot: "x"}}
	packed := good
	packed.Packed, packed.Disk.Digest = unpack.XZ, sum256Of(nil).String()
	for _, v := range []any{good, packed, facts{}, nil, []int{}, map[string]any{"format": 99}} {
		text, err := json.Marshal(v)
		require.NoError(f, err)
		f.Add(text)
	}
	text, _ := json.Marshal(good)
	f.Add([]byte(strings.Replace(string(text), "disk.qcow2", "../disk.qcow2", 1)))
	f.Add([]byte(strings.Replace(string(text), `"format":1`, `"format":1e3`, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := parseFacts(b, of)
		if !ok {
			return
		}
		require.Equal(t, of.String(), got.Digest)
		require.True(t, slices.Contains(diskNames, got.Disk.Name))
		_, err := digest.Parse(got.Disk.Digest)
		require.NoError(t, err)
	})
}

// The text beside an image gives a SHA-512, or says that it is none.
func FuzzSidecar(f *testing.F) {
	hex := sumOf(nil).Hex
	for _, text := range []string{"", hex, hex + "  disk.qcow2\n", strings.ToUpper(hex) + "\r\n", "SHA512 (disk.qcow2) = " + hex, "\ufeffsha512:" + hex, hex[:64],
		hex + "\n" + hex, strings.Repeat("0", 128), "<html>", "\x00", strings.Repeat("a", 5000)} {
		f.Add([]byte(text))
	}
	dir := f.TempDir()
	path := filepath.Join(dir, "disk.qcow2")
	require.NoError(f, os.WriteFile(path, nil, 0o600))
	f.Fuzz(func(t *testing.T, b []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "disk.sha512"), b, 0o600))
		sum, err := Sidecar(path)
		var bad *SidecarError
		if err != nil {
			require.ErrorAs(t, err, &bad)
			require.NotEmpty(t, bad.Hint())
			require.Empty(t, sum)
			return
		}
		d, err := digest.Parse(sum)
		require.NoError(t, err)
		require.Equal(t, digest.SHA512, d.Algorithm)
		require.Contains(t, strings.ToLower(string(b)), d.Hex)
	})
}
