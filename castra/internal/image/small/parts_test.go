package small

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type cpioEntry struct {
	name         string
	mode         int
	data         string
	major, minor int
}

// readCpio reads the format from its description: 13 numbers of 8 hex digits after the magic, name and data padded to 4 bytes.
func readCpio(t *testing.T, archive []byte) []cpioEntry {
	t.Helper()
	var list []cpioEntry
	for at := 0; ; {
		require.Equal(t, "070701", string(archive[at:at+6]))
		var field [13]int
		for i := range field {
			n, err := strconv.ParseUint(string(archive[at+6+8*i:at+14+8*i]), 16, 32)
			require.NoError(t, err)
			field[i] = int(n)
		}
		name := string(archive[at+110 : at+110+field[11]-1])
		at = (at + 110 + field[11] + 3) &^ 3
		data := string(archive[at : at+field[6]])
		at = (at + field[6] + 3) &^ 3
		if name == "TRAILER!!!" {
			require.Len(t, archive, at)
			return list
		}
		require.Zero(t, field[2]+field[3], "belongs to root")
		list = append(list, cpioEntry{name, field[1], data, field[9], field[10]})
	}
}

func TestCpio(t *testing.T) {
	var archive bytes.Buffer
	c := cpioWriter{w: &archive}
	c.dir("dev", 0o755)
	c.char("dev/console", 0o600, 5, 1)
	for _, data := range []string{"", "a", "ab", "abc", "abcd", "abcde"} {
		c.file("f"+data, 0o644, []byte(data))
	}
	c.link("sh", "busybox")
	require.NoError(t, c.close())
	require.Equal(t, []cpioEntry{
		{"dev", 0o40755, "", 0, 0},
		{"dev/console", 0o20600, "", 5, 1},
		{"f", 0o100644, "", 0, 0}, {"fa", 0o100644, "a", 0, 0}, {"fab", 0o100644, "ab", 0, 0},
		{"fabc", 0o100644, "abc", 0, 0}, {"fabcd", 0o100644, "abcd", 0, 0}, {"fabcde", 0o100644, "abcde", 0, 0},
		{"sh", 0o120777, "busybox", 0, 0},
	}, readCpio(t, archive.Bytes()))
}

func TestCpioKeepsFirstError(t *testing.T) {
	r, w := io.Pipe()
	require.NoError(t, r.CloseWithError(os.ErrPermission))
	c := cpioWriter{w: w}
	c.dir("dev", 0o755)
	c.file("f", 0o644, []byte("x"))
	require.ErrorIs(t, c.close(), os.ErrPermission)
}

// fakeModule is an ELF file with nothing but a .modinfo section.
func fakeModule(depends string) []byte {
	info := []byte("license=GPL\x00depends=" + depends + "\x00name=x\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	header.Shoff = uint64(64 + len(info) + len(names))
	var b bytes.Buffer
	for _, part := range []any{
		header, info, names, elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info))},
		elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names))},
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func fakeModules(t *testing.T, depends map[string]string) *kernelModules {
	t.Helper()
	dir := t.TempDir()
	for file, d := range depends {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), fakeModule(d), 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/fs/ext4/ext4.ko\nkernel/lib/crc-itu-t.ko\n"), 0o644))
	m, err := findModules(dir)
	require.NoError(t, err)
	return m
}

func names(list []module) string {
	var all []string
	for _, m := range list {
		all = append(all, m.name)
	}
	return strings.Join(all, " ")
}

func TestModuleOrder(t *testing.T) {
	m := fakeModules(t, map[string]string{
		"virtio_pci.ko": "virtio,virtio_pci_modern-dev", "virtio.ko": "virtio_ring", "virtio_ring.ko": "",
		"virtio_pci_modern_dev.ko": "", "virtio_blk.ko": "virtio,virtio_ring,crc-itu-t", "virtio-rng.ko": "virtio", "loop-a.ko": "loop-b", "loop-b.ko": "loop-a",
	})
	loaded := make(map[string]bool)
	list, err := m.order(moduleSet{want: []string{"virtio_pci", "virtio_blk", "ext4"}}, loaded)
	require.NoError(t, err)
	require.Equal(t, "virtio_ring virtio virtio_pci_modern_dev virtio_pci virtio_blk", names(list))
	require.Equal(t, fakeModule("virtio_ring"), list[1].data)

	list, err = m.order(moduleSet{want: []string{"virtio_rng"}, optional: []string{"sr_mod"}}, loaded)
	require.NoError(t, err)
	require.Equal(t, "virtio_rng", names(list), "what is loaded already is not loaded again; what is optional may be missing")

	list, err = m.order(moduleSet{want: []string{"loop_a"}}, loaded)
	require.NoError(t, err)
	require.Equal(t, "loop_b loop_a", names(list))

	_, err = m.order(moduleSet{want: []string{"isofs"}}, loaded)
	require.EqualError(t, err, "kernel module isofs: not in the kernel package")
}

func TestModuleDependsDamaged(t *testing.T) {
	whole := fakeModule("virtio")
	_, err := moduleDepends(whole[:len(whole)-1])
	require.Error(t, err)
	_, err = moduleDepends(nil)
	require.Error(t, err)
}

func TestParsePackages(t *testing.T) {
	text := `Package: dropbear-bin
Source: dropbear
Version: 2022.83-1+deb12u3
Depends: libc6 (>= 2.34), libtomcrypt1:any | libtomcrypt0, zlib1g
Pre-Depends: dpkg (>= 1.19)
Description: small server
 Package: not a field
 .
 Version: nor this
Filename: pool/main/d/dropbear/dropbear-bin_2022.83-1+deb12u3_amd64.deb
SHA256: 44ac

Package: libc6
Version: 2.36
`
	require.Equal(t, []pkg{
		{Name: "dropbear-bin", Version: "2022.83-1+deb12u3", File: "dropbear-bin_2022.83-1+deb12u3_amd64.deb", SHA256: "44ac",
			depends: []string{"libc6", "libtomcrypt1", "zlib1g", "dpkg"}},
		{Name: "libc6", Version: "2.36"},
	}, parsePackages([]byte(text)))
	require.Empty(t, parsePackages([]byte("N: Unable to locate package\n")))
}

// Package lists come from outside: a name in an archive or a list must not leave its directory.
func TestUntarStaysInside(t *testing.T) {
	for _, h := range []tar.Header{
		{Name: "../evil", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "/evil", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "out/evil", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		outside := t.TempDir()
		dir := filepath.Join(outside, "dir")
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "./out", Linkname: "..", Typeflag: tar.TypeSymlink}))
		require.NoError(t, w.WriteHeader(&h))
		require.NoError(t, w.Close())
		require.Error(t, untar(&archive, dir, nil), h.Name)
		require.NoFileExists(t, filepath.Join(outside, "evil"))
	}
}

func TestUntar(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, name := range []string{"./bin/tool", "./usr/share/doc/tool"} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: 4}))
		_, err := w.Write([]byte("tool"))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	dir := t.TempDir()
	require.NoError(t, untar(&archive, dir, func(name string) bool { return strings.HasPrefix(name, "bin/") }))
	info, err := os.Stat(filepath.Join(dir, "bin/tool"))
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&0o100)
	require.NoDirExists(t, filepath.Join(dir, "usr"))
}

func TestLZ4Block(t *testing.T) {
	long := "\xf0\x05" + strings.Repeat("x", 20) // 15 + 5 literals
	tests := []struct{ name, in, want string }{
		{"literals alone", "\x30abc", "abc"},
		{"long literals", long, strings.Repeat("x", 20)},
		{"overlapping copy", "\x12a\x01\x00\x10b", "aaaaaaa" + "b"},
		{"copy of more than 19", "\x1fa\x01\x00\x02\x10b", strings.Repeat("a", 22) + "b"},
		{"distance of two", "\x20ab\x02\x00\x10c", "ababab" + "c"},
	}
	for _, tt := range tests {
		out, err := lz4Block(make([]byte, 0, len(tt.want)), []byte(tt.in))
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.want, string(out), tt.name)
		_, err = lz4Block(make([]byte, 0, len(tt.want)-1), []byte(tt.in))
		require.Error(t, err, "%s: more than the kernel is long", tt.name)
	}
	for _, bad := range []string{"\x30ab", "\xf0", "\xf0\xff", "\x10a\x01", "\x10a\x00\x00", "\x10a\x02\x00\x10b"} {
		_, err := lz4Block(make([]byte, 0, 64), []byte(bad))
		require.ErrorIs(t, err, errLZ4, "%q", bad)
	}
}

func TestDirectKernelFallsBack(t *testing.T) {
	for _, in := range []string{"", "MZ", strings.Repeat("\x00", bzMagic) + "HdrS" + strings.Repeat("\xff", 4096)} {
		require.Equal(t, in, string(directKernel([]byte(in))))
	}
}

func TestPartition(t *testing.T) {
	entry := make([]byte, 16)
	partition(entry, 0x80, 0x0e, 2048, 65536)
	require.Equal(t, "\x80\xfe\xff\xff\x0e\xfe\xff\xff\x00\x08\x00\x00\x00\x00\x01\x00", string(entry))
}

func TestCopySparse(t *testing.T) {
	dir := t.TempDir()
	content := append(bytes.Repeat([]byte{0}, 128<<10), []byte("end")...)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "part"), content, 0o644))
	mbr := bytes.Repeat([]byte{1}, sectorSize)
	const fatSectors = 3 * fatStep
	require.NoError(t, joinDisk(filepath.Join(dir, "raw"), mbr, filepath.Join(dir, "part"), fatSectors, filepath.Join(dir, "part")))
	disk, err := os.Open(filepath.Join(dir, "raw"))
	require.NoError(t, err)
	defer disk.Close()
	info, err := disk.Stat()
	require.NoError(t, err)
	require.EqualValues(t, (fatStart+fatSectors+rootSectors)*sectorSize, info.Size())
	for _, start := range []int64{fatStart, fatStart + fatSectors} {
		end := make([]byte, 3)
		_, err := disk.ReadAt(end, start*sectorSize+128<<10)
		require.NoError(t, err)
		require.Equal(t, "end", string(end))
	}
	first := make([]byte, sectorSize)
	_, err = disk.ReadAt(first, 0)
	require.NoError(t, err)
	require.Equal(t, mbr, first)
}
