package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The qcow2 header, as QEMU's docs/interop/qcow2.txt lays it out, and the bounds of QEMU's block/qcow2.h.
const (
	headerV2Length = 72
	headerV3Length = 104
	withPacking    = 112 // the length of a header that names its compression type

	incompatibleDataFile = 1 << 2
	incompatiblePacking  = 1 << 3
	incompatibleL2       = 1 << 4
	incompatibleKnown    = 0b11111 // dirty, corrupt, data file, compression type, extended L2

	extensionEnd      = 0
	extensionDataFile = 0x44415441
	extensionLUKS     = 0x0537be77
	extensionBitmaps  = 0x23852875

	minClusterBits = 9
	maxClusterBits = 21
	maxPacking     = 1 // zstd
	maxRefcount    = 6 // 2^6 bits

	maxVirtualSize = 16 << 40
	maxL1          = 32 << 20 // bytes, as the next two
	maxRefcounts   = 8 << 20
	maxSnapshots   = 65536
	leastSnapshot  = 40 // bytes of one in the table
	maxBitmaps     = 65535
)

var qcow2Magic = []byte("QFI\xfb")

// qcow2 is an image's header, and the size of its file.
type qcow2 struct {
	b    []byte // up to maxHeader
	file uint64
}

func (q qcow2) u32(at int) uint32 { return binary.BigEndian.Uint32(q.b[at:]) }
func (q qcow2) u64(at int) uint64 { return binary.BigEndian.Uint64(q.b[at:]) }

// cluster is the size of a cluster in bytes.
func (q qcow2) cluster() uint64 { return 1 << q.u32(20) }

// parseHeader reads the first bytes of a qcow2, up to maxHeader of them. Size is that of the whole file. What QEMU would refuse is
// refused here, before QEMU gives it memory.
func parseHeader(b []byte, size int64) (Info, error) {
	if len(b) < headerV2Length || !bytes.Equal(b[:4], qcow2Magic) {
		return Info{}, errors.New("its header is cut short")
	}
	q := qcow2{b, uint64(max(size, 0))}
	info := Info{Format: FormatQcow2, Version: q.u32(4), VirtualSize: q.u64(24)}
	if info.Version != 2 && info.Version != 3 {
		return Info{}, fmt.Errorf("qcow2 of version %d, and Castra knows 2 and 3", info.Version)
	}
	if err := q.alone(); err != nil {
		return Info{}, err
	}
	if info.VirtualSize == 0 || info.VirtualSize > maxVirtualSize {
		return Info{}, fmt.Errorf("its disk size of %d bytes is out of range", info.VirtualSize)
	}
	if bits := q.u32(20); bits < minClusterBits || bits > maxClusterBits {
		return Info{}, fmt.Errorf("its clusters of 2^%d bytes are out of range", bits)
	}
	l2Entry, length := uint64(8), headerV2Length
	if info.Version == 3 {
		if err := q.version3(); err != nil {
			return Info{}, err
		}
		length = int(q.u32(100))
		if q.u64(72)&incompatibleL2 != 0 {
			l2Entry = 16
		}
	}
	if err := q.extensions(length); err != nil {
		return Info{}, err
	}
	return info, q.tables(q.cluster() / l2Entry * q.cluster())
}

// alone refuses a header that says that the image is not all there is: another file, or a key, belongs to it.
func (q qcow2) alone() error {
	if off, n := q.u64(8), uint64(q.u32(16)); off != 0 {
		name := "another file"
		if off < uint64(len(q.b)) && n <= 1023 && off+n <= uint64(len(q.b)) {
			name = fmt.Sprintf("%q", q.b[off:off+n])
		}
		return fmt.Errorf("it has %s as its backing file, which QEMU would read for the guest", name)
	}
	if q.u32(32) != 0 {
		return errors.New("it is encrypted")
	}
	return nil
}

// version3 looks at what version 3 has more.
func (q qcow2) version3() error {
	if len(q.b) < headerV3Length {
		return errors.New("its header is cut short")
	}
	features := q.u64(72)
	if features&incompatibleDataFile != 0 {
		return errors.New("it keeps its data in another file, which QEMU would open for the guest")
	}
	if features&^incompatibleKnown != 0 {
		return fmt.Errorf("it needs features this Castra does not know (%#x)", features)
	}
	length := q.u32(100)
	if length < headerV3Length || uint64(length) > min(uint64(len(q.b)), q.cluster()) {
		return fmt.Errorf("its header length of %d is out of range", length)
	}
	if order := q.u32(96); order > maxRefcount {
		return fmt.Errorf("its refcounts of 2^%d bits are out of range", order)
	}
	packing := byte(0)
	if length >= withPacking {
		packing = q.b[headerV3Length]
	}
	if packing > maxPacking || (packing != 0) != (features&incompatiblePacking != 0) {
		return fmt.Errorf("its compression type %d is not known, or not announced", packing)
	}
	return nil
}

// tables refuses tables that are larger than any that QEMU makes, or that the file does not hold. L2 is how many bytes of the
// disk are behind an entry of the L1 table.
func (q qcow2) tables(l2 uint64) error {
	for _, t := range []struct {
		name             string
		off, bytes, most uint64
	}{
		{"L1 table", q.u64(40), 8 * uint64(q.u32(36)), maxL1},
		{"refcount table", q.u64(48), uint64(q.u32(56)) * q.cluster(), maxRefcounts},
		{"snapshot table", q.u64(64), leastSnapshot * uint64(q.u32(60)), leastSnapshot * maxSnapshots},
	} {
		switch {
		case t.bytes > t.most:
			return fmt.Errorf("its %s of %d bytes is out of range", t.name, t.bytes)
		case t.bytes == 0 && t.name == "snapshot table":
		case t.bytes == 0:
			return fmt.Errorf("it has no %s", t.name)
		case t.off == 0 || t.off%q.cluster() != 0 || t.off > q.file || t.bytes > q.file-t.off:
			return fmt.Errorf("its %s is not in the file: it is damaged, or cut short", t.name)
		}
	}
	if size := q.u64(24); (size+l2-1)/l2 > uint64(q.u32(36)) {
		return fmt.Errorf("its L1 table is too small for a disk of %d bytes", size)
	}
	return nil
}

// extensions looks at the header extensions from byte at on: the name of a data file also where the feature bit does not
// announce one.
func (q qcow2) extensions(at int) error {
	for at+8 <= len(q.b) {
		kind, n := q.u32(at), uint64(q.u32(at+4))
		rest := uint64(len(q.b) - at - 8)
		switch {
		case kind == extensionEnd:
			return nil
		case kind == extensionDataFile:
			return errors.New("it names a data file, which QEMU would open for the guest")
		case kind == extensionLUKS:
			return errors.New("it is encrypted")
		case n > rest:
			return errors.New("its header extensions are damaged")
		case kind == extensionBitmaps:
			if err := q.bitmaps(at+8, n); err != nil {
				return err
			}
		}
		at += 8 + (int(n)+7)&^7
	}
	return errors.New("its header extensions do not end")
}

// bitmaps looks at the extension that tells of dirty bitmaps, n bytes from at on.
func (q qcow2) bitmaps(at int, n uint64) error {
	if n != 24 {
		return errors.New("its header extensions are damaged")
	}
	count, size, off := uint64(q.u32(at)), q.u64(at+8), q.u64(at+16)
	if count > maxBitmaps || size > count*(24+1024) || off > q.file || size > q.file-off {
		return errors.New("its bitmaps are out of range")
	}
	return nil
}
