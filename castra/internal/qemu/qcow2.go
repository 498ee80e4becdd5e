package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Overlays are written here and not by qemu-img, which takes some 25 ms to start
// for 200 bytes. The facts are those of QEMU's docs/interop/qcow2.txt; the
// layout is qemu-img's: header, refcount table, its one block, L1 table, each
// from a cluster of its own on. QEMU grows all of them as the guest writes.
const (
	qcow2Magic  = 0x514649fb // "QFI\xfb"
	clusterBits = 16
	clusterSize = 1 << clusterBits
	sectorSize  = 512

	refcountTable = 1 // clusters
	refcountBlock = 2
	l1Table       = 3

	backingFormat = 0xe2792aca // header extension
	maxBacking    = 1023       // bytes of a backing file's path

	l2Covers       = clusterSize / 8 * clusterSize // bytes of the disk behind an L1 entry
	maxVirtualSize = (32 << 20) / 8 * l2Covers     // QEMU opens L1 tables of up to 32 MiB
)

// qcow2Header is version 3 of the format, up to the compression type.
type qcow2Header struct {
	Magic, Version   uint32
	BackingOffset    uint64
	BackingSize      uint32
	ClusterBits      uint32
	Size             uint64 // of the disk, bytes
	CryptMethod      uint32
	L1Size           uint32 // entries
	L1Offset         uint64
	RefcountOffset   uint64
	RefcountClusters uint32
	Snapshots        uint32
	SnapshotsOffset  uint64
	Incompatible     uint64
	Compatible       uint64
	AutoClear        uint64
	RefcountOrder    uint32 // 4: refcounts of 16 bits
	HeaderLength     uint32
	CompressionType  uint64
}

// OverlayError says: no overlay can be made as asked.
type OverlayError struct {
	Path    string // of the overlay or its backing file, whichever is at fault
	Problem string
	Fix     string
}

func (e *OverlayError) Error() string { return fmt.Sprintf("overlay: %s: %s", e.Path, e.Problem) }

// Hint says what to do next.
func (e *OverlayError) Hint() string { return e.Fix }

// writeOverlay fills f with an empty qcow2 of virtualSize bytes, whole
// sectors, on top of backing. What f held is gone. The header comes last: a
// writer that was killed leaves no qcow2.
func writeOverlay(f *os.File, backing Backing, virtualSize int64) error {
	switch path := backing.Path; {
	case !filepath.IsAbs(path):
		return &OverlayError{path, "the backing file's path is not absolute", "give it as an absolute path"}
	case len(path) > maxBacking:
		return &OverlayError{path, fmt.Sprintf("the backing file's path has %d bytes, and a qcow2 holds %d", len(path), maxBacking),
			"move it to a shorter path"}
	case virtualSize <= 0 || virtualSize > maxVirtualSize || virtualSize%sectorSize != 0:
		return &OverlayError{f.Name(), fmt.Sprintf("a disk of %d bytes is not possible", virtualSize),
			fmt.Sprintf("take a multiple of %d, at most %d", sectorSize, int64(maxVirtualSize))}
	}
	l1 := (virtualSize + l2Covers - 1) / l2Covers
	clusters := l1Table + (l1*8+clusterSize-1)/clusterSize
	refcounts := bytes.Repeat([]byte{0, 1}, int(clusters))
	for _, size := range []int64{0, clusters * clusterSize} { // all else is zero, and holes
		if err := f.Truncate(size); err != nil {
			return fmt.Errorf("overlay: %w", err)
		}
	}
	for _, part := range []struct {
		cluster int64
		data    []byte
	}{
		{refcountBlock, refcounts},
		{refcountTable, binary.BigEndian.AppendUint64(nil, refcountBlock*clusterSize)},
		{0, overlayHeader(backing, virtualSize, l1)},
	} {
		if _, err := f.WriteAt(part.data, part.cluster*clusterSize); err != nil {
			return fmt.Errorf("overlay: %w", err)
		}
	}
	return nil
}

func overlayHeader(backing Backing, virtualSize, l1 int64) []byte {
	h := qcow2Header{
		Magic: qcow2Magic, Version: 3, ClusterBits: clusterBits, Size: uint64(virtualSize),
		L1Size: uint32(l1), L1Offset: l1Table * clusterSize,
		RefcountOffset: refcountTable * clusterSize, RefcountClusters: 1, RefcountOrder: 4,
	}
	h.HeaderLength = uint32(binary.Size(h))
	// The format's name in an extension, padded to 8 bytes, and the end of the extensions. Without it QEMU would guess the format
	// by what a guest may have written.
	extensions := binary.BigEndian.AppendUint32(nil, backingFormat)
	extensions = binary.BigEndian.AppendUint32(extensions, uint32(len(backing.Format)))
	extensions = append(extensions, backing.Format+"\x00\x00\x00\x00\x00\x00\x00\x00"[len(backing.Format):]...)
	extensions = append(extensions, make([]byte, 8)...)
	h.BackingOffset, h.BackingSize = uint64(h.HeaderLength)+uint64(len(extensions)), uint32(len(backing.Path))
	var b bytes.Buffer
	_ = binary.Write(&b, binary.BigEndian, h) // a buffer takes all
	b.Write(extensions)
	b.WriteString(backing.Path)
	return b.Bytes()
}

// virtualSize is the size in bytes of the disk in the qcow2 at path, in whole
// sectors as QEMU sees it.
func virtualSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("overlay: backing file: %w", err)
	}
	defer f.Close()
	size, ok := qcow2Size(f)
	if !ok {
		return 0, &OverlayError{path, "the backing file is no qcow2", "qemu-img convert -O qcow2 makes one of it"}
	}
	if size < sectorSize || size > maxVirtualSize {
		return 0, &OverlayError{path, fmt.Sprintf("the backing file's disk of %d bytes is out of range", size), "fetch or build it again"}
	}
	return int64(size) / sectorSize * sectorSize, nil
}

// rawSize is the size in bytes of the raw image at path, in whole sectors as QEMU sees it: the last one is filled up with zeros.
func rawSize(path string) (int64, error) {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return 0, fmt.Errorf("overlay: backing file: %w", err)
	case !st.Mode().IsRegular():
		return 0, &OverlayError{path, "the backing file is no regular file", "copy it to one"}
	case st.Size() == 0 || st.Size() > maxVirtualSize-sectorSize:
		return 0, &OverlayError{path, fmt.Sprintf("the backing file's disk of %d bytes is out of range", st.Size()), "fetch or build it again"}
	}
	return (st.Size() + sectorSize - 1) / sectorSize * sectorSize, nil
}

// qcow2Size is the size in bytes of the disk in f, and whether f is a qcow2 at all.
func qcow2Size(f io.ReaderAt) (uint64, bool) {
	head := make([]byte, 32)
	if _, err := f.ReadAt(head, 0); err != nil || binary.BigEndian.Uint32(head) != qcow2Magic {
		return 0, false
	}
	return binary.BigEndian.Uint64(head[24:]), true
}

// BackingOf reads which image the qcow2 at path is on top of. Made is false of
// a file whose header is not written yet, as that of an overlay in the making;
// what is no qcow2 has no backing image.
func BackingOf(path string) (backing string, made bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	head := make([]byte, 4<<10) // what comes before the path is 128 bytes of ours, and QEMU may add some
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", false, err
	}
	if head = head[:n]; bytes.Count(head, []byte{0}) == len(head) {
		return "", false, nil
	}
	if n < 32 || binary.BigEndian.Uint32(head) != qcow2Magic {
		return "", true, nil
	}
	at, size := binary.BigEndian.Uint64(head[8:]), binary.BigEndian.Uint32(head[16:])
	if size > maxBacking {
		return "", true, nil
	}
	name := make([]byte, size)
	if _, err := f.ReadAt(name, int64(at&(1<<62-1))); err != nil {
		return "", true, nil // a header that leads nowhere is not ours
	}
	return string(name), true, nil
}
