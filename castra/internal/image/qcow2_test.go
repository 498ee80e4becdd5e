package image

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// header is a plain version 3 header of a 1 MiB disk.
func header() []byte {
	b := make([]byte, 512)
	copy(b, qcow2Magic)
	be := binary.BigEndian
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 16)
	be.PutUint64(b[24:], 1<<20)
	be.PutUint32(b[100:], headerV3Length)
	return b
}

func TestInspectRefuses(t *testing.T) {
	be := binary.BigEndian
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"empty":        {nil, "empty"},
		"text":         {[]byte("hello"), "not a qcow2"},
		"html":         {[]byte("<!doctype html><title>404</title>"), "HTML"},
		"short header": {header()[:90], "cut short"},
		"version 4":    {with(func(b []byte) { be.PutUint32(b[4:], 4) }), "version 4"},
		"backing file": {with(func(b []byte) {
			be.PutUint64(b[8:], 200)
			be.PutUint32(b[16:], 11)
			copy(b[200:], "/etc/shadow")
		}), `"/etc/shadow" as its backing file`},
		"backing file out of range": {with(func(b []byte) { be.PutUint64(b[8:], 1<<60); be.PutUint32(b[16:], 1<<31) }), "backing file"},
		"encrypted":                 {with(func(b []byte) { be.PutUint32(b[32:], 2) }), "encrypted"},
		"data file bit":             {with(func(b []byte) { be.PutUint64(b[72:], incompatibleDataFile) }), "another file"},
		"data file name": {with(func(b []byte) {
			be.PutUint32(b[104:], extensionDataFile)
			be.PutUint32(b[108:], 4)
		}), "names a data file"},
		"unknown feature": {with(func(b []byte) { be.PutUint64(b[72:], 1<<40) }), "does not know"},
		"no size":         {with(func(b []byte) { be.PutUint64(b[24:], 0) }), "out of range"},
		"absurd size":     {with(func(b []byte) { be.PutUint64(b[24:], 1<<63) }), "out of range"},
		"header length":   {with(func(b []byte) { be.PutUint32(b[100:], 1<<30) }), "header length"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			require.NoError(t, os.WriteFile(path, c.data, 0o600))
			_, err := Inspect(path)
			var fe *FormatError
			require.ErrorAs(t, err, &fe)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, path)
			require.NotEmpty(t, fe.Hint())
		})
	}
}

func with(change func([]byte)) []byte {
	b := header()
	change(b)
	return b
}

func TestInspectTakesPlainImages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	require.NoError(t, os.WriteFile(path, header(), 0o600))
	info, err := Inspect(path)
	require.NoError(t, err)
	require.Equal(t, Info{Format: FormatQcow2, Version: 3, VirtualSize: 1 << 20}, info)
}

func TestInspectNoFile(t *testing.T) {
	dir := t.TempDir()
	_, err := Inspect(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Inspect(dir)
	require.ErrorContains(t, err, "not a regular file")
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	_, err = Inspect(fifo)
	require.ErrorContains(t, err, "not a regular file")
}

// What QEMU itself writes is judged as the header table above is.
func TestInspectAgreesWithQEMU(t *testing.T) {
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	dir := t.TempDir()
	create := func(args ...string) string {
		path := filepath.Join(dir, "img.qcow2")
		out, err := exec.Command(img, append(append([]string{"create", "-q", "-f", "qcow2"}, args...), path, "64M")...).CombinedOutput()
		require.NoError(t, err, string(out))
		return path
	}
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, make([]byte, 1<<16), 0o600))
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"plain":        {nil, ""},
		"version 2":    {[]string{"-o", "compat=0.10"}, ""},
		"zstd":         {[]string{"-o", "compression_type=zstd"}, ""},
		"extended L2":  {[]string{"-o", "extended_l2=on,cluster_size=128k"}, ""},
		"backing file": {[]string{"-F", "raw", "-b", secret}, "backing file"},
		"data file":    {[]string{"-o", "data_file=" + filepath.Join(dir, "data")}, "another file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Inspect(create(c.args...))
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
		})
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add(header())
	f.Add(header()[:72])
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := parseHeader(b)
		if err == nil && (info.VirtualSize == 0 || info.VirtualSize > maxVirtualSize) {
			t.Fatalf("accepted a disk of %d bytes", info.VirtualSize)
		}
	})
}
