package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Info is what the header of a qcow2 file says.
type Info struct {
	Version     uint32
	VirtualSize uint64 // bytes
}

// FormatError says: the file is not a disk that Castra may boot.
type FormatError struct {
	Path   string
	Reason string
	Help   string
}

func (e *FormatError) Error() string { return fmt.Sprintf("base image %s: %s", e.Path, e.Reason) }

// Hint says what to do next.
func (e *FormatError) Hint() string { return e.Help }

// The qcow2 header, as QEMU's docs/interop/qcow2.txt lays it out.
const (
	headerV2Length = 72
	headerV3Length = 104

	incompatibleDataFile = 1 << 2
	incompatibleKnown    = 0b11111 // dirty, corrupt, data file, compression type, extended L2

	extensionEnd      = 0
	extensionDataFile = 0x44415441

	maxVirtualSize = 16 << 40
	maxHeader      = 64 << 10
)

var qcow2Magic = []byte("QFI\xfb")

// Inspect reads the header of the qcow2 at path. It refuses, with a
// *FormatError, what is not a qcow2, and one that names another file (backing
// file or data file) or is encrypted: QEMU would open that file of the host
// for the guest.
func Inspect(path string) (Info, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Info{}, fmt.Errorf("base image: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Info{}, fmt.Errorf("base image: %w", err)
	}
	if !st.Mode().IsRegular() {
		return Info{}, &FormatError{path, "not a regular file", "give the path of a qcow2 file"}
	}
	head, err := io.ReadAll(io.LimitReader(f, maxHeader))
	if err != nil {
		return Info{}, fmt.Errorf("base image %s: %w", path, err)
	}
	info, err := parseHeader(head)
	if err != nil {
		return Info{}, describe(path, head, err)
	}
	return info, nil
}

var errNotQcow2 = errors.New("not a qcow2 image")

func describe(path string, head []byte, err error) error {
	const convert = "qemu-img convert -O qcow2 makes a plain qcow2 of it"
	switch {
	case len(head) == 0:
		return &FormatError{path, "the file is empty", "fetch or build the image again"}
	case errors.Is(err, errNotQcow2) && bytes.HasPrefix(bytes.TrimSpace(head), []byte("<")):
		return &FormatError{path, "not a qcow2 image but a page of HTML or XML", "fetch the image again; the server sent an error page"}
	default:
		return &FormatError{path, err.Error(), convert}
	}
}

func parseHeader(b []byte) (Info, error) {
	if len(b) < headerV2Length || !bytes.Equal(b[:4], qcow2Magic) {
		return Info{}, errNotQcow2
	}
	be := binary.BigEndian
	info := Info{Version: be.Uint32(b[4:]), VirtualSize: be.Uint64(b[24:])}
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
	return nil
}
