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

// header is a plain version 3 image of an empty 1 MiB disk: header, refcount table and L1 table, in clusters of 512 bytes.
func header() []byte {
	b := make([]byte, 2048)
	copy(b, qcow2Magic)
	be := binary.BigEndian
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 9)
	be.PutUint64(b[24:], 1<<20)
	be.PutUint32(b[36:], 32)
	be.PutUint64(b[40:], 1024)
	be.PutUint64(b[48:], 512)
	be.PutUint32(b[56:], 1)
	be.PutUint32(b[96:], 4)
	be.PutUint32(b[100:], headerV3Length)
	return b
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
		out, err := exec.Command(img, append(append([]string{"create", "-q", "-f", "qcow2"}, args...), path, "8M")...).CombinedOutput()
		require.NoError(t, err, string(out))
		return path
	}
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, make([]byte, 1<<16), 0o600))
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"plain":           {nil, ""},
		"version 2":       {[]string{"-o", "compat=0.10"}, ""},
		"zstd":            {[]string{"-o", "compression_type=zstd"}, ""},
		"extended L2":     {[]string{"-o", "extended_l2=on,cluster_size=128k"}, ""},
		"small clusters":  {[]string{"-o", "cluster_size=512"}, ""},
		"large clusters":  {[]string{"-o", "cluster_size=2M"}, ""},
		"refcounts of 1":  {[]string{"-o", "refcount_bits=1"}, ""},
		"refcounts of 64": {[]string{"-o", "refcount_bits=64"}, ""},
		"lazy refcounts":  {[]string{"-o", "lazy_refcounts=on"}, ""},
		"metadata":        {[]string{"-o", "preallocation=metadata"}, ""},
		"backing file":    {[]string{"-F", "raw", "-b", secret}, "backing file"},
		"backing json":    {[]string{"-F", "raw", "-b", `json:{"driver":"raw","file":{"driver":"file","filename":"` + secret + `"}}`}, "backing file"},
		"data file":       {[]string{"-o", "data_file=" + filepath.Join(dir, "data")}, "another file"},
		"data file, raw":  {[]string{"-o", "data_file_raw=on,data_file=" + filepath.Join(dir, "data2")}, "another file"},
		"AES":             {[]string{"--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s"}, "encrypted"},
		"LUKS":            {[]string{"--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"}, "encrypted"},
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

// What QEMU's tools have done to an image since it was made is taken too.
func TestInspectTakesUsedImages(t *testing.T) {
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	for _, args := range [][]string{
		{"create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "8M"},
		{"snapshot", "-c", "first", path},
		{"bitmap", "--add", path, "dirty"},
		{"resize", "-q", path, "1G"},
	} {
		out, err := exec.Command(img, args...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
		_, err = Inspect(path)
		require.NoError(t, err, "%v", args)
	}
}
