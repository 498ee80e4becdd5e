package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The qcow2 header, as QEMU's docs/interop/qcow2.txt lays it out.
const (
	headerV2Length = 72
	headerV3Length = 104

	incompatibleDataFile = 1 << 2
	incompatibleKnown    = 0b11111 // dirty, corrupt, data file, compression type, extended L2

	extensionEnd      = 0
	extensionDataFile = 0x44415441

	minClusterBits = 9
	maxClusterBits = 21

	maxVirtualSize = 16 << 40
)

var qcow2Magic = []byte("QFI\xfb")

// parseHeader reads the first bytes of a qcow2, up to maxHeader of them.
func parseHeader(b []byte) (Info, error) {
	if len(b) < headerV2Length || !bytes.Equal(b[:4], qcow2Magic) {
		return Info{}, errors.New("its header is cut short")
	}
	be := binary.BigEndian
	info := Info{Format: FormatQcow2, Version: be.Uint32(b[4:]), VirtualSize: be.Uint64(b[24:])}
	if info.Version != 2 && info.Version != 3 {
		return Info{}, fmt.Errorf("qcow2 of version %d, and Castra knows 2 and 3", info.Version)
	}
	if off, n := be.Uint64(b[8:]), uint64(be.Uint32(b[16:])); off != 0 {
		name := "another file"
		if off < uint64(len(b)) && n <= 1023 && off+n <= uint64(len(b)) {
			name = fmt.Sprintf("%q", b[off:off+n])
		}
		return Info{}, fmt.Errorf("it has %s as its backing file, which QEMU would read for the guest", name)
	}
	if be.Uint32(b[32:]) != 0 {
		return Info{}, errors.New("it is encrypted")
	}
	if info.VirtualSize == 0 || info.VirtualSize > maxVirtualSize {
		return Info{}, fmt.Errorf("its disk size of %d bytes is out of range", info.VirtualSize)
	}
	if bits := be.Uint32(b[20:]); bits < minClusterBits || bits > maxClusterBits {
		return Info{}, fmt.Errorf("its clusters of 2^%d bytes are out of range", bits)
	}
	if info.Version == 3 {
		return info, checkV3(b)
	}
	return info, checkExtensions(b, headerV2Length)
}

func checkV3(b []byte) error {
	if len(b) < headerV3Length {
		return errors.New("its header is cut short")
	}
	features := binary.BigEndian.Uint64(b[72:])
	if features&incompatibleDataFile != 0 {
		return errors.New("it keeps its data in another file, which QEMU would open for the guest")
	}
	if features&^incompatibleKnown != 0 {
		return fmt.Errorf("it needs features this Castra does not know (%#x)", features)
	}
	length := binary.BigEndian.Uint32(b[100:])
	if length < headerV3Length || uint64(length) > uint64(len(b)) {
		return fmt.Errorf("its header length of %d is out of range", length)
	}
	return checkExtensions(b, int(length))
}

// checkExtensions looks for the name of a data file also where the feature
// bit does not announce one.
func checkExtensions(b []byte, at int) error {
	for at+8 <= len(b) {
		kind, n := binary.BigEndian.Uint32(b[at:]), int(binary.BigEndian.Uint32(b[at+4:]))
		switch {
		case kind == extensionEnd:
			return nil
		case kind == extensionDataFile:
			return errors.New("it names a data file, which QEMU would open for the guest")
		case n < 0 || n > len(b):
			return errors.New("its header extensions are damaged")
		}
		at += 8 + (n+7)&^7
	}
	return errors.New("its header extensions do not end")
}
