package qemutest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"
)

// Layout of the images written here: the header, the refcount table, one
// refcount block and the L1 table, each from a cluster of its own on.
const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	qcow2Magic  = 0x514649fb // "QFI\xfb"
	formatExt   = 0xe2792aca // header extension: format of the backing file
)

// qcow2Header is version 3 of the format up to the compression type.
type qcow2Header struct {
	Magic, Version        uint32
	BackingOffset         uint64
	BackingSize           uint32
	ClusterBits           uint32
	Size                  uint64 // of the disk, bytes
	CryptMethod           uint32
	L1Size                uint32
	L1Offset              uint64
	RefcountOffset        uint64
	RefcountClusters      uint32
	Snapshots             uint32
	SnapshotsOffset       uint64
	Incompatible          uint64
	Compatible, AutoClear uint64
	RefcountOrder         uint32
	HeaderLength          uint32
	CompressionType       uint64
}

// WriteImage writes an empty qcow2 of the given size in bytes to path: a base
// image for tests.
func WriteImage(t testing.TB, path string, size int64) {
	t.Helper()
	if err := writeQcow2(path, uint64(size), "", ""); err != nil {
		t.Fatalf("write image: %v", err)
	}
}

// WriteRawImage writes an empty raw disk, of holes but for a boot sector's
// signature, to path.
func WriteRawImage(t testing.TB, path string, size int64) {
	t.Helper()
	sector := make([]byte, 512)
	copy(sector[510:], "\x55\xaa")
	err := os.WriteFile(path, sector, 0o644)
	if err == nil {
		err = os.Truncate(path, size)
	}
	if err != nil {
		t.Fatalf("write image: %v", err)
	}
}

// writeQcow2 keeps the inode of a file that is there. backing may be "".
func writeQcow2(path string, size uint64, backing, format string) error {
	perL2 := uint64(clusterSize / 8 * clusterSize)
	l1 := (size + perL2 - 1) / perL2
	l1Clusters := (l1*8 + clusterSize - 1) / clusterSize
	h := qcow2Header{
		Magic: qcow2Magic, Version: 3, ClusterBits: clusterBits, Size: size,
		L1Size: uint32(l1), L1Offset: 3 * clusterSize,
		RefcountOffset: clusterSize, RefcountClusters: 1, RefcountOrder: 4, HeaderLength: 112,
	}
	var ext bytes.Buffer
	if backing != "" {
		_ = binary.Write(&ext, binary.BigEndian, []uint32{formatExt, uint32(len(format))})
		ext.WriteString(format + "\x00\x00\x00\x00\x00\x00\x00\x00"[len(format):]) // padded to 8 bytes
	}
	ext.Write(make([]byte, 8)) // end of the extensions
	if backing != "" {
		h.BackingOffset, h.BackingSize = uint64(h.HeaderLength)+uint64(ext.Len()), uint32(len(backing))
		ext.WriteString(backing)
	}
	var b bytes.Buffer
	_ = binary.Write(&b, binary.BigEndian, h)
	b.Write(ext.Bytes())
	if b.Len() > clusterSize {
		return errors.New("backing file name is too long")
	}
	image := make([]byte, (3+l1Clusters)*clusterSize)
	copy(image, b.Bytes())
	binary.BigEndian.PutUint64(image[clusterSize:], 2*clusterSize)
	for i := range 3 + l1Clusters {
		binary.BigEndian.PutUint16(image[2*clusterSize+2*i:], 1)
	}
	return os.WriteFile(path, image, 0o644)
}

// readHeader reads a qcow2 of version 2 or 3 as far as both agree.
func readHeader(r io.ReaderAt) (qcow2Header, error) {
	var h qcow2Header
	err := binary.Read(io.NewSectionReader(r, 0, 1<<10), binary.BigEndian, &h)
	if err != nil || h.Magic != qcow2Magic {
		return h, errors.New("not a qcow2")
	}
	return h, nil
}

// backingOf is the path and the format of what a qcow2 writes on top of; "" for none.
func backingOf(r io.ReaderAt) (path, format string, err error) {
	h, err := readHeader(r)
	if err != nil || h.BackingSize == 0 {
		return "", "", err
	}
	name := make([]byte, min(h.BackingSize, 1023))
	if _, err := r.ReadAt(name, int64(h.BackingOffset)); err != nil {
		return "", "", err
	}
	for at := int64(h.HeaderLength); ; {
		var head struct{ Kind, Size uint32 }
		if err := binary.Read(io.NewSectionReader(r, at, 8), binary.BigEndian, &head); err != nil {
			return "", "", err
		}
		switch head.Kind {
		case 0:
			return string(name), "", nil
		case formatExt:
			text := make([]byte, min(head.Size, 16))
			_, err := r.ReadAt(text, at+8)
			return string(name), string(text), err
		}
		at += 8 + (int64(head.Size)+7)&^7
	}
}
