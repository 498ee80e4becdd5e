package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/image/unpack"
)

// The formats of disks that Castra boots, by QEMU's names.
const (
	FormatQcow2 = "qcow2"
	FormatRaw   = "raw"
)

// Info is what the header of a disk says.
type Info struct {
	Format      string // FormatQcow2 or FormatRaw
	Version     uint32 // of qcow2
	VirtualSize uint64 // bytes
}

// FormatError says: the file is not a disk that Castra may boot.
type FormatError struct {
	Path   string // or URL
	Reason string
	Help   string
}

func (e *FormatError) Error() string { return fmt.Sprintf("base image %s: %s", e.Path, e.Reason) }

// Hint says what to do next.
func (e *FormatError) Hint() string { return e.Help }

const (
	sector        = 512
	bootSignature = 510 // where 55 AA stands in the first sector of a bootable disk
	maxHeader     = 64 << 10
)

// Inspect reads the header of the disk at path. It takes a qcow2, and as raw
// what is whole sectors with the boot signature in the first. It refuses, with
// a *FormatError, anything else, and a qcow2 that names another file (backing
// file or data file) or is encrypted: QEMU would open that file of the host for
// the guest.
func Inspect(path string) (Info, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Info{}, fmt.Errorf("base image: %w", err)
	}
	defer f.Close()
	return inspect(f, path)
}

func inspect(f *os.File, name string) (Info, error) {
	st, err := f.Stat()
	if err != nil {
		return Info{}, fmt.Errorf("base image: %w", err)
	}
	if !st.Mode().IsRegular() {
		return Info{}, &FormatError{name, "not a regular file", "give the path of a qcow2 or raw disk"}
	}
	head, err := io.ReadAll(io.NewSectionReader(f, 0, maxHeader))
	if err != nil {
		return Info{}, fmt.Errorf("base image %s: %w", name, err)
	}
	tail := make([]byte, sector)
	if _, err := f.ReadAt(tail, max(0, st.Size()-sector)); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, fmt.Errorf("base image %s: %w", name, err)
	}
	if bytes.HasPrefix(head, qcow2Magic) {
		info, err := parseHeader(head, st.Size())
		if err != nil {
			return Info{}, &FormatError{name, err.Error(), convert("qcow2")}
		}
		return info, nil
	}
	if why := notRaw(head, tail, st.Size()); why != nil {
		why.Path = name
		return Info{}, why
	}
	return Info{Format: FormatRaw, VirtualSize: uint64(st.Size())}, nil
}

func convert(from string) string {
	return "qemu-img convert -f " + from + " -O qcow2 makes a plain qcow2 of it"
}

// notRaw tells why a file that is no qcow2 is no raw disk either; nil where it
// is one.
func notRaw(head, tail []byte, size int64) *FormatError {
	form := unpack.Detect(head)
	name, format := container(head, tail)
	switch {
	case size == 0:
		return &FormatError{"", "the file is empty", "fetch or build the image again"}
	case form != unpack.None:
		return &FormatError{"", fmt.Sprintf("not a disk but a compressed file (%s)", form), "unpack it first; one that is given as a URL is unpacked by itself"}
	case bytes.HasPrefix(bytes.TrimSpace(head), []byte("<")) && format == "":
		return &FormatError{"", "not a qcow2 image but a page of HTML or XML", "fetch the image again; the server sent an error page"}
	case format == "iso":
		return &FormatError{"", "it is a CD image, an installer or a live system, and not a disk", "use the image of an installed disk, as distributions have them for clouds"}
	case format == "archive":
		return &FormatError{"", "not a disk but an archive (" + name + ")", "unpack it first, and use the disk in it"}
	case format != "":
		return &FormatError{"", "it is a " + name + " image, and Castra boots qcow2 and raw", convert(format)}
	case len(head) < sector || size%sector != 0 || head[bootSignature] != 0x55 || head[bootSignature+1] != 0xaa:
		return &FormatError{"", "not a qcow2 image, nor a raw disk (whole sectors with a boot signature)", "look at it with: qemu-img info; " + convert("raw")}
	case size > maxVirtualSize:
		return &FormatError{"", fmt.Sprintf("its disk size of %d bytes is out of range", size), "use a smaller disk"}
	}
	return nil
}

// containers are other formats of disks by what they hold and where; QEMU's
// block drivers and libmagic name them.
var containers = []struct {
	at           int
	magic        string
	name, format string
}{
	{0, "KDMV", "VMDK", "vmdk"}, {0, "COWD", "VMDK", "vmdk"}, {0, "# Disk DescriptorFile", "VMDK", "vmdk"},
	{0x40, "\x7f\x10\xda\xbe", "VDI", "vdi"}, {0, "<<< ", "VDI", "vdi"},
	{0, "vhdxfile", "VHDX", "vhdx"}, {0, "conectix", "VHD", "vpc"},
	{0, "QED\x00", "QED", "qed"}, {0, "WithoutFreeSpace", "Parallels", "parallels"}, {0, "WithouFreSpacExt", "Parallels", "parallels"},
	{0, "Bochs Virtual HD Image", "Bochs", "bochs"}, {0, "LUKS\xba\xbe", "LUKS (encrypted)", "luks"},
	{0, "PK\x03\x04", "ZIP", "archive"}, {0, "7z\xbc\xaf\x27\x1c", "7-Zip", "archive"}, {0, "BZh", "bzip2", "archive"}, {257, "ustar", "tar or OVA", "archive"},
	{0x8001, "CD001", "ISO 9660", "iso"}, {0x8001, "NSR0", "UDF", "iso"}, {0x8001, "BEA01", "UDF", "iso"},
}

// container names the format that a file is in, for people and for QEMU; "" of
// none that is known. A fixed VHD is a raw disk with a sector more at its end.
func container(head, tail []byte) (name, format string) {
	for _, c := range containers {
		if len(head) >= c.at && bytes.HasPrefix(head[c.at:], []byte(c.magic)) {
			return c.name, c.format
		}
	}
	switch {
	case bytes.HasPrefix(tail, []byte("conectix")):
		return "VHD", "vpc"
	case bytes.HasPrefix(tail, []byte("koly")):
		return "DMG", "dmg"
	}
	return "", ""
}
