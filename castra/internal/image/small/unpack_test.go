package small

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
)

func packed(t *testing.T, format string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch format {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	}
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestReadModule(t *testing.T) {
	dir := t.TempDir()
	plain := fakeModule("virtio")
	for name, data := range map[string][]byte{"a.ko": plain, "b.ko.xz": packed(t, "xz", plain), "c.ko.zst": packed(t, "zstd", plain)} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, data, 0o644))
		got, err := readModule(file)
		require.NoError(t, err, name)
		require.Equal(t, plain, got, name)
		if name == "a.ko" {
			continue
		}
		require.NoError(t, os.WriteFile(file, data[:len(data)/2], 0o644))
		_, err = readModule(file)
		require.ErrorContains(t, err, name)
	}
}

func TestARM64Image(t *testing.T) {
	image := make([]byte, 4096)
	copy(image, "MZ")
	copy(image[imageMagicAt:], imageMagic)
	zboot := func(format string, payload []byte, length int) []byte {
		header := make([]byte, 64)
		copy(header, zbootMagic)
		binary.LittleEndian.PutUint32(header[zbootOffset:], uint32(len(header)))
		binary.LittleEndian.PutUint32(header[zbootLength:], uint32(length))
		copy(header[zbootFormat:], format)
		return append(header, payload...)
	}
	gz, zs := packed(t, "gzip", image), packed(t, "zstd", image)
	for name, in := range map[string][]byte{"plain": image, "gzip": gz, "zboot gzip": zboot("gzip", gz, len(gz)), "zboot zstd": zboot("zstd22", zs, len(zs))} {
		require.Equal(t, image, arm64Image(in), name)
	}
	for name, in := range map[string][]byte{
		"empty": {}, "damaged gzip": gz[:20], "not a kernel inside": packed(t, "gzip", []byte("text")),
		"unknown format": zboot("lz5", gz, len(gz)), "payload outside": zboot("gzip", gz, len(gz)+1), "header alone": zboot("gzip", nil, 0)[:57],
	} {
		require.Equal(t, in, arm64Image(in), name)
	}
}
