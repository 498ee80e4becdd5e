package qemutest

import (
	"encoding/binary"
	"fmt"
)

// Hostile is an image that somebody made so that QEMU does with it what its owner would not want.
type Hostile struct {
	Name string
	Data []byte
	Says string // what its refusal must say
}

// edit changes a header.
type edit func(b []byte)

func (e edit) and(more edit) edit {
	return func(b []byte) {
		e(b)
		more(b)
	}
}

func put32(at int, v uint32) edit {
	return func(b []byte) { binary.BigEndian.PutUint32(b[at:], v) }
}

func put64(at int, v uint64) edit {
	return func(b []byte) { binary.BigEndian.PutUint64(b[at:], v) }
}

// extension writes the head of a header extension.
func extension(at int, kind, length uint32) edit { return put32(at, kind).and(put32(at+4, length)) }

// backing names a backing file.
func backing(name string) edit {
	return put64(8, 200).and(put32(16, uint32(len(name)))).and(func(b []byte) { copy(b[200:], name) })
}

// The fields of a qcow2 header, and kinds of its extensions.
const (
	atVersion, atClusterBits, atSize, atCrypt = 4, 20, 24, 32
	atL1Size, atL1, atRefcounts, atRefTables  = 36, 40, 48, 56
	atSnapshots, atSnapshotTable, atFeatures  = 60, 64, 72
	atRefOrder, atLength, atPacking, atMore   = 96, 100, 104, 112

	extDataFile, extNames, extLUKS, extBitmaps = 0x44415441, 0x6803f857, 0x0537be77, 0x23852875
)

// plainQcow2 is an empty disk of 1 MiB in clusters of 512 bytes: header, refcount table, its block, L1 table. QEMU opens it.
func plainQcow2(change edit) []byte {
	b := make([]byte, 2048)
	copy(b, "QFI\xfb")
	put32(atVersion, 3).and(put32(atClusterBits, 9)).and(put64(atSize, 1<<20)).and(put32(atL1Size, 32)).and(put64(atL1, 1536)).
		and(put64(atRefcounts, 512)).and(put32(atRefTables, 1)).and(put32(atRefOrder, 4)).and(put32(atLength, atMore)).and(put64(512, 1024))(b)
	for cluster := range 4 {
		binary.BigEndian.PutUint16(b[1024+2*cluster:], 1)
	}
	if change != nil {
		change(b)
	}
	return b
}

// rawWith is a raw disk with a boot signature, and text at a byte of it.
func rawWith(at int, text string) []byte {
	b := make([]byte, 64<<10)
	b[510], b[511] = 0x55, 0xaa
	copy(b[at:], text)
	return b
}

// HostileImages are images that are to be refused before QEMU or qemu-img opens them (fault D6, failure bank 34). Secret is the
// path of a file of the host that they name.
func HostileImages(secret string) []Hostile {
	all := []Hostile{
		{"text", []byte("hello"), "not a qcow2"},
		{"html", []byte("\n <!doctype html><title>404</title>"), "HTML"},
		{"empty", nil, "empty"},
		{"raw without signature", make([]byte, 4096), "not a qcow2 image"},
		{"raw, half a sector", rawWith(0, "")[:1000], "not a qcow2 image"},
	}
	for _, part := range [][]Hostile{otherFiles(secret), wrongHeaders(), bombs(), otherFormats(secret)} {
		all = append(all, part...)
	}
	return all
}

// otherFiles name other files, or need a key.
func otherFiles(secret string) []Hostile {
	q := func(name string, change edit, says string) Hostile { return Hostile{name, plainQcow2(change), says} }
	const hasBacking, hasData = "as its backing file", "another file"
	v2 := put32(atVersion, 2).and(put32(atLength, 0))
	return []Hostile{
		q("backing file", backing(secret), fmt.Sprintf("%q as its backing file", secret)),
		q("backing /etc/shadow", backing("/etc/shadow"), hasBacking),
		q("backing relative", backing("../../secret"), hasBacking),
		q("backing json file", backing(fmt.Sprintf(`json:{"driver":"raw","file":{"driver":"file","filename":%q}}`, secret)), hasBacking),
		q("backing json nbd", backing(`json:{"driver":"nbd"}`), hasBacking),
		q("backing json, split", backing(`json:{"file.driver":"host_device","file.filename":"/dev/sda"}`), hasBacking),
		q("backing nbd", backing("nbd://127.0.0.1/"), hasBacking),
		q("backing nbd on a socket", backing("nbd+unix:///?socket=/run/x"), hasBacking),
		q("backing fat", backing("fat:rw:/etc"), hasBacking),
		q("backing http", backing("http://127.0.0.1/"), hasBacking),
		q("backing ssh", backing("ssh://127.0.0.1/etc/shadow"), hasBacking),
		q("backing fd", backing("/dev/fd/0"), hasBacking),
		q("backing of no length", put64(8, 200), hasBacking),
		q("backing of 4 GiB", put64(8, 200).and(put32(16, 1<<32-1)), hasBacking),
		q("backing out of range", put64(8, 1<<63).and(put32(16, 4)), hasBacking),
		q("backing in version 2", v2.and(backing(secret)), hasBacking),
		q("backing and its format", backing(secret).and(extension(atMore, 0xe2792aca, 3)), hasBacking),
		q("data file bit", put64(atFeatures, 4), hasData),
		q("data file and dirty", put64(atFeatures, 5), hasData),
		q("data file name", extension(atMore, extDataFile, 11), "names a data file"),
		q("data file name, bit too", put64(atFeatures, 4).and(extension(atMore, extDataFile, uint32(len(secret)))).and(func(b []byte) { copy(b[atMore+8:], secret) }), hasData),
		q("data file name later", extension(atMore, extNames, 96).and(extension(atMore+104, extDataFile, 11)), "names a data file"),
		q("data file name after a short one", extension(atMore, extNames, 1).and(extension(atMore+16, extDataFile, 11)), "names a data file"),
		q("data file name in version 2", v2.and(extension(72, extDataFile, 4)), "names a data file"),
		q("AES", put32(atCrypt, 1), "encrypted"),
		q("LUKS", put32(atCrypt, 2), "encrypted"),
		q("encryption not known", put32(atCrypt, 1<<31), "encrypted"),
		q("LUKS header alone", extension(atMore, extLUKS, 16), "encrypted"),
	}
}

// wrongHeaders lie about themselves.
func wrongHeaders() []Hostile {
	q := func(name string, change edit, says string) Hostile { return Hostile{name, plainQcow2(change), says} }
	return []Hostile{
		{"magic alone", []byte("QFI\xfb"), "cut short"},
		{"version 2, cut short", plainQcow2(put32(atVersion, 2))[:71], "cut short"},
		{"version 3, cut short", plainQcow2(nil)[:103], "cut short"},
		q("version 0", put32(atVersion, 0), "version 0"),
		q("version 1", put32(atVersion, 1), "version 1"),
		q("version 4", put32(atVersion, 4), "version 4"),
		q("version 2^32-1", put32(atVersion, 1<<32-1), "version"),
		q("feature not known", put64(atFeatures, 1<<5), "does not know"),
		q("last feature", put64(atFeatures, 1<<63), "does not know"),
		q("all features", put64(atFeatures, 1<<64-1), "another file"),
		q("compression not known", put64(atFeatures, 8).and(func(b []byte) { b[atPacking] = 2 }), "compression type 2"),
		q("compression not announced", func(b []byte) { b[atPacking] = 1 }, "compression type 1"),
		q("compression of none", put64(atFeatures, 8), "compression type 0"),
		q("header of 4 GiB", put32(atLength, 1<<32-1), "header length"),
		q("header over its cluster", put32(atLength, 1024), "header length"),
		q("header of version 2", put32(atLength, 72), "header length"),
		q("header of nothing", put32(atLength, 0), "header length"),
		q("refcounts of 128 bits", put32(atRefOrder, 7), "refcounts"),
		q("refcounts of 2^2^32 bits", put32(atRefOrder, 1<<32-1), "refcounts"),
		q("clusters of 1 byte", put32(atClusterBits, 0), "out of range"),
		q("clusters of 256 bytes", put32(atClusterBits, 8), "out of range"),
		q("clusters of 4 MiB", put32(atClusterBits, 22), "out of range"),
		q("clusters of 2^64 bytes", put32(atClusterBits, 64), "out of range"),
		q("extension too long", extension(atMore, extNames, 1<<20), "damaged"),
		q("extension of 4 GiB", extension(atMore, extNames, 1<<32-1), "damaged"),
		q("extensions that go on", extension(atMore, extNames, 2048-atMore-8), "do not end"),
	}
}

// bombs ask for more than there is, of the disk or of memory.
func bombs() []Hostile {
	q := func(name string, change edit, says string) Hostile { return Hostile{name, plainQcow2(change), says} }
	bitmaps := func(count uint32, size, off uint64) edit {
		return extension(atMore, extBitmaps, 24).and(put32(atMore+8, count)).and(put64(atMore+16, size)).and(put64(atMore+24, off))
	}
	return []Hostile{
		q("no size", put64(atSize, 0), "out of range"),
		q("17 TiB", put64(atSize, 17<<40), "out of range"),
		q("2^63 bytes", put64(atSize, 1<<63), "out of range"),
		q("2^64-1 bytes", put64(atSize, 1<<64-1), "out of range"),
		q("larger than its L1 table", put64(atSize, 1<<30), "too small"),
		q("L1 table of 32 GiB", put32(atL1Size, 1<<32-1), "L1 table"),
		q("L1 table of 32 MiB", put32(atL1Size, 1<<22), "L1 table is not in the file"),
		q("no L1 table", put32(atL1Size, 0), "no L1 table"),
		q("L1 table in the header", put64(atL1, 0), "L1 table"),
		q("L1 table at an odd place", put64(atL1, 1537), "L1 table"),
		q("L1 table behind the file", put64(atL1, 1<<40), "L1 table"),
		q("L1 table at the last byte of all", put64(atL1, 1<<64-512), "L1 table"),
		q("no refcount table", put32(atRefTables, 0), "no refcount table"),
		q("refcount table of 2 TiB", put32(atRefTables, 1<<32-1), "refcount table"),
		q("refcount table of 8 MiB", put32(atRefTables, 8<<20>>9), "refcount table is not in the file"),
		q("refcount table behind the file", put64(atRefcounts, 1<<40), "refcount table"),
		q("refcount table in the header", put64(atRefcounts, 0), "refcount table"),
		q("refcount table at an odd place", put64(atRefcounts, 513), "refcount table"),
		q("2^32-1 snapshots", put32(atSnapshots, 1<<32-1).and(put64(atSnapshotTable, 512)), "snapshot table"),
		q("65537 snapshots", put32(atSnapshots, 65537).and(put64(atSnapshotTable, 512)), "snapshot table"),
		q("65536 snapshots behind the file", put32(atSnapshots, 65536).and(put64(atSnapshotTable, 512)), "snapshot table"),
		q("a snapshot in the header", put32(atSnapshots, 1), "snapshot table"),
		q("2^32-1 bitmaps", bitmaps(1<<32-1, 24, 512), "bitmaps"),
		q("bitmaps of 2^64-1 bytes", bitmaps(1, 1<<64-1, 512), "bitmaps"),
		q("bitmaps behind the file", bitmaps(1, 24, 1<<50), "bitmaps"),
		q("bitmaps cut short", extension(atMore, extBitmaps, 8), "damaged"),
	}
}

// otherFormats are disks of other programs, which QEMU opens too, and packed ones.
func otherFormats(secret string) []Hostile {
	flat := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 128 FLAT %q 0\n", secret)
	return []Hostile{
		{"vmdk descriptor", []byte(flat), "VMDK"},
		{"vmdk descriptor, whole sectors", rawWith(0, flat), "VMDK"},
		{"vmdk sparse", rawWith(0, "KDMV"), "VMDK"},
		{"vmdk of ESX", rawWith(0, "COWD"), "VMDK"},
		{"vdi", rawWith(0x40, "\x7f\x10\xda\xbe"), "VDI"},
		{"vhdx", rawWith(0, "vhdxfile"), "VHDX"},
		{"vpc", rawWith(0, "conectix"), "VHD"},
		{"vpc, fixed", rawWith(63<<10+512, "conectix"), "VHD"},
		{"dmg", rawWith(63<<10+512, "koly"), "DMG"},
		{"qed", rawWith(0, "QED\x00"), "QED"},
		{"parallels", rawWith(0, "WithouFreSpacExt"), "Parallels"},
		{"bochs", rawWith(0, "Bochs Virtual HD Image"), "Bochs"},
		{"luks", rawWith(0, "LUKS\xba\xbe"), "LUKS"},
		{"iso, hybrid", rawWith(0x8001, "CD001"), "CD image"},
		{"gz", rawWith(0, "\x1f\x8b\x08"), "compressed file (gz)"},
		{"xz", rawWith(0, "\xfd7zXZ\x00"), "compressed file (xz)"},
		{"zst", rawWith(0, "\x28\xb5\x2f\xfd"), "compressed file (zst)"},
		{"zip", rawWith(0, "PK\x03\x04"), "ZIP"},
		{"7z", rawWith(0, "7z\xbc\xaf\x27\x1c"), "7-Zip"},
		{"bzip2", rawWith(0, "BZh9"), "bzip2"},
		{"tar, as an OVA is", rawWith(257, "ustar"), "tar"},
	}
}
