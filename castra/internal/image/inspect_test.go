package image

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/unpack"
)

// rawDisk is whole sectors with a boot signature.
func rawDisk(change func([]byte)) []byte {
	b := make([]byte, 64<<10)
	b[510], b[511] = 0x55, 0xaa
	if change != nil {
		change(b)
	}
	return b
}

// crafted are images that somebody made to be booted by mistake: fault D6,
// failure bank 34.
func crafted(t testing.TB) map[string]struct {
	data []byte
	says string
} {
	be := binary.BigEndian
	backing := func(name string) func([]byte) {
		return func(b []byte) {
			be.PutUint64(b[8:], 200)
			be.PutUint32(b[16:], uint32(len(name)))
			copy(b[200:], name)
		}
	}
	at := func(off int, text string) []byte {
		return rawDisk(func(b []byte) { copy(b[off:], text) })
	}
	return map[string]struct {
		data []byte
		says string
	}{
		"backing file":         {with(backing("/etc/shadow")), `"/etc/shadow" as its backing file`},
		"backing json":         {with(backing(`json:{"driver":"nbd"}`)), "as its backing file"},
		"backing nbd":          {with(backing("nbd://127.0.0.1/")), "as its backing file"},
		"backing relative":     {with(backing("../../secret")), "as its backing file"},
		"backing of no length": {with(func(b []byte) { be.PutUint64(b[8:], 200) }), "as its backing file"},
		"backing at the end":   {with(func(b []byte) { be.PutUint64(b[8:], 1<<63); be.PutUint32(b[16:], 4) }), "as its backing file"},
		"backing in version 2": {with(func(b []byte) { be.PutUint32(b[4:], 2); backing("/etc/shadow")(b) }), "as its backing file"},
		"data file bit":        {with(func(b []byte) { be.PutUint64(b[72:], incompatibleDataFile) }), "another file"},
		"data file and dirty":  {with(func(b []byte) { be.PutUint64(b[72:], incompatibleDataFile|1) }), "another file"},
		"data file name":       {with(extension(104, extensionDataFile, 11)), "names a data file"},
		"data file name later": {with(func(b []byte) { extension(104, 0x6803f857, 96)(b); extension(208, extensionDataFile, 11)(b) }), "names a data file"},
		"data file in version 2": {with(func(b []byte) {
			be.PutUint32(b[4:], 2)
			be.PutUint32(b[100:], 0)
			extension(72, extensionDataFile, 4)(b)
		}), "names a data file"},
		"extension too long":    {with(extension(104, 0x6803f857, 1<<20)), "damaged"},
		"extension of 4 GiB":    {with(extension(104, 0x6803f857, 1<<32-1)), "damaged"},
		"extensions that go on": {with(extension(104, 0x6803f857, 400)), "do not end"},
		"AES":                   {with(func(b []byte) { be.PutUint32(b[32:], 1) }), "encrypted"},
		"LUKS in qcow2":         {with(func(b []byte) { be.PutUint32(b[32:], 2) }), "encrypted"},
		"unknown feature":       {with(func(b []byte) { be.PutUint64(b[72:], 1<<5) }), "does not know"},
		"all features":          {with(func(b []byte) { be.PutUint64(b[72:], 1<<64-1) }), "another file"},
		"version 1":             {with(func(b []byte) { be.PutUint32(b[4:], 1) }), "version 1"},
		"version 2^32-1":        {with(func(b []byte) { be.PutUint32(b[4:], 1<<32-1) }), "version"},
		"no size":               {with(func(b []byte) { be.PutUint64(b[24:], 0) }), "out of range"},
		"17 TiB":                {with(func(b []byte) { be.PutUint64(b[24:], 17<<40) }), "out of range"},
		"2^64-1 bytes":          {with(func(b []byte) { be.PutUint64(b[24:], 1<<64-1) }), "out of range"},
		"clusters of 1 byte":    {with(func(b []byte) { be.PutUint32(b[20:], 0) }), "out of range"},
		"clusters of 2 GiB":     {with(func(b []byte) { be.PutUint32(b[20:], 31) }), "out of range"},
		"header of 4 GiB":       {with(func(b []byte) { be.PutUint32(b[100:], 1<<32-1) }), "out of range"},
		"header of version 2":   {with(func(b []byte) { be.PutUint32(b[100:], 72) }), "out of range"},
		"magic alone":           {[]byte("QFI\xfb"), "cut short"},
		"vmdk descriptor":       {[]byte("# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"/etc/shadow\" 0\n"), "VMDK"},
		"vmdk, whole sectors":   {at(0, "# Disk DescriptorFile\n"), "VMDK"},
		"vmdk sparse":           {at(0, "KDMV"), "VMDK"},
		"vmdk of ESX":           {at(0, "COWD"), "VMDK"},
		"vdi":                   {at(0x40, "\x7f\x10\xda\xbe"), "VDI"},
		"vhdx":                  {at(0, "vhdxfile"), "VHDX"},
		"vpc":                   {at(0, "conectix"), "VHD"},
		"vpc, fixed":            {at(63<<10+512, "conectix"), "VHD"},
		"dmg":                   {at(63<<10+512, "koly"), "DMG"},
		"qed":                   {at(0, "QED\x00"), "QED"},
		"parallels":             {at(0, "WithouFreSpacExt"), "Parallels"},
		"luks":                  {at(0, "LUKS\xba\xbe"), "LUKS"},
		"iso, hybrid":           {at(0x8001, "CD001"), "CD image"},
		"raw without signature": {make([]byte, 4096), "not a qcow2 image"},
		"raw, half a sector":    {rawDisk(nil)[:1000], "not a qcow2 image"},
		"gz":                    {pack(t, unpack.Gzip, rawDisk(nil)), "compressed file (gz)"},
		"xz":                    {pack(t, unpack.XZ, rawDisk(nil)), "compressed file (xz)"},
		"zst":                   {pack(t, unpack.Zstd, rawDisk(nil)), "compressed file (zst)"},
		"html":                  {[]byte("\n <!doctype html><title>404</title>"), "HTML"},
		"text":                  {[]byte("hello"), "not a qcow2"},
		"empty":                 {nil, "empty"},
	}
}

// extension writes the head of a header extension.
func extension(at int, kind, length uint32) func([]byte) {
	return func(b []byte) {
		binary.BigEndian.PutUint32(b[at:], kind)
		binary.BigEndian.PutUint32(b[at+4:], length)
	}
}

func TestCraftedImages(t *testing.T) {
	o := newOrigin(t)
	for name, c := range crafted(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.img")
			require.NoError(t, os.WriteFile(path, c.data, 0o600))
			_, err := Inspect(path)
			var fe *FormatError
			require.ErrorAs(t, err, &fe)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, path)
			require.NotEmpty(t, fe.Hint())

			if len(c.data) == 0 || unpack.Detect(c.data) != unpack.None {
				return
			}
			home := newHome(t)
			s := o.put("disk.img", c.data)
			_, err = Ensure(t.Context(), home, s, Report{})
			if c.says == "HTML" && !bytes.Contains([]byte(err.Error()), []byte(c.says)) {
				return // who fetches has seen it
			}
			require.ErrorAs(t, err, &fe)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, s.URL, fe.Path)
			_, ok := Find(home, s)
			require.False(t, ok)
			require.Equal(t, []string{lockName}, names(t, filepath.Join(home, "images", "sha512-"+s.Digest.Hex[:32])))
		})
	}
}

func TestInspectTakesRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(path, rawDisk(nil), 0o600))
	info, err := Inspect(path)
	require.NoError(t, err)
	require.Equal(t, Info{Format: FormatRaw, VirtualSize: 64 << 10}, info)
	require.Contains(t, notRaw(rawDisk(nil), nil, maxVirtualSize+sector).Reason, "out of range")
}

// What QEMU itself writes in other formats is known for what it is.
func TestInspectKnowsOtherFormats(t *testing.T) {
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	require.NoError(t, os.WriteFile(raw, rawDisk(nil), 0o600))
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"qcow2": {[]string{"-O", "qcow2"}, ""}, "qcow2 compressed": {[]string{"-c", "-O", "qcow2"}, ""}, "raw": {[]string{"-O", "raw"}, ""},
		"vmdk": {[]string{"-O", "vmdk"}, "VMDK"}, "vmdk flat": {[]string{"-O", "vmdk", "-o", "subformat=monolithicFlat"}, "VMDK"}, "vdi": {[]string{"-O", "vdi"}, "VDI"},
		"vhdx": {[]string{"-O", "vhdx"}, "VHDX"}, "vpc": {[]string{"-O", "vpc"}, "VHD"}, "vpc fixed": {[]string{"-O", "vpc", "-o", "subformat=fixed"}, "VHD"},
		"qed": {[]string{"-O", "qed"}, "QED"}, "parallels": {[]string{"-O", "parallels"}, "Parallels"}, "qcow": {[]string{"-O", "qcow"}, "version 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			if out, err := exec.Command(img, append(append([]string{"convert", "-f", "raw"}, c.args...), raw, path)...).CombinedOutput(); err != nil {
				t.Skip(string(out))
			}
			info, err := Inspect(path)
			if c.says == "" {
				require.NoError(t, err)
				require.EqualValues(t, 64<<10, info.VirtualSize)
				require.Equal(t, c.args[len(c.args)-1], info.Format)
				return
			}
			require.ErrorAs(t, err, new(*FormatError))
			require.ErrorContains(t, err, c.says)
		})
	}
}
