package seed

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// This writes the smallest ISO 9660 image that Linux, and so cloud-init,
// reads: one root directory of plain files. kdomanski/iso9660 is not used to
// write, for two reasons: it stages every file in the shared temporary
// directory, where a killed process leaves the private host key behind; and it
// stamps the current time, so that equal seeds differ. The tests read our
// images with it.

const (
	sector      = 2048
	pathTableL  = 18 // sectors: 16 and 17 hold the volume descriptors
	pathTableM  = 19
	rootSector  = 20
	firstSector = 21
)

type isoFile struct {
	name string // as the guest sees it
	data []byte
}

// isoImage lays out files, sorted by name, in one root directory of one
// sector, which holds about 20 of them.
func isoImage(label string, files []isoFile) []byte {
	next := firstSector
	root := append(isoRecord("\x00", rootSector, sector, true), isoRecord("\x01", rootSector, sector, true)...)
	for _, f := range files {
		// Linux drops ";1" and keeps lower case, so the guest sees the exact
		// name although ISO 9660 itself allows upper case only.
		root = append(root, isoRecord(f.name+";1", next, len(f.data), false)...)
		next += sectors(len(f.data))
	}
	image := make([]byte, next*sector)
	copy(image[16*sector:], primaryDescriptor(label, next))
	copy(image[17*sector:], "\xffCD001\x01")
	table := []byte{1, 0, 0, 0, 0, 0, 1, 0, 0, 0} // one directory: the root
	copy(image[pathTableL*sector:], table)
	binary.LittleEndian.PutUint32(image[pathTableL*sector+2:], rootSector)
	copy(image[pathTableM*sector:], table)
	image[pathTableM*sector+6], image[pathTableM*sector+7] = 0, 1
	binary.BigEndian.PutUint32(image[pathTableM*sector+2:], rootSector)
	copy(image[rootSector*sector:], root)
	at := firstSector
	for _, f := range files {
		copy(image[at*sector:], f.data)
		at += sectors(len(f.data))
	}
	return image
}

func primaryDescriptor(label string, total int) []byte {
	d := make([]byte, sector)
	copy(d, "\x01CD001\x01")
	for _, field := range []struct {
		at, size int
		text     string
	}{
		{8, 32, "LINUX"}, {40, 32, label}, {190, 128, ""}, {318, 128, ""}, {446, 128, ""}, {574, 128, "CASTRA"},
		{702, 37, ""}, {739, 37, ""}, {776, 37, ""},
	} {
		copy(d[field.at:], field.text+strings.Repeat(" ", field.size-len(field.text)))
	}
	copy(d[80:], both32(total))
	copy(d[120:], both16(1)) // volumes in the set
	copy(d[124:], both16(1)) // this one
	copy(d[128:], both16(sector))
	copy(d[132:], both32(10)) // bytes in a path table
	binary.LittleEndian.PutUint32(d[140:], pathTableL)
	binary.BigEndian.PutUint32(d[148:], pathTableM)
	copy(d[156:], isoRecord("\x00", rootSector, sector, true))
	for _, at := range []int{813, 830, 847, 864} { // made, changed, expires, effective: not said
		copy(d[at:], "0000000000000000\x00")
	}
	d[881] = 1
	return d
}

// isoRecord is one directory record, without a system use field. The date is
// fixed so that equal seeds give equal bytes.
func isoRecord(name string, at, size int, dir bool) []byte {
	var b bytes.Buffer
	b.Write([]byte{byte(33 + len(name) + (len(name)+1)%2), 0})
	b.Write(both32(at))
	b.Write(both32(size))
	b.Write([]byte{100, 1, 1, 0, 0, 0, 0}) // 2000-01-01 00:00:00 UTC
	flags := byte(0)
	if dir {
		flags = 2
	}
	b.Write([]byte{flags, 0, 0})
	b.Write(both16(1))
	b.WriteByte(byte(len(name)))
	b.WriteString(name)
	if len(name)%2 == 0 {
		b.WriteByte(0)
	}
	return b.Bytes()
}

func sectors(size int) int { return (size + sector - 1) / sector }

// ISO 9660 keeps most numbers twice, in either byte order.

func both16(n int) []byte {
	return binary.BigEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, uint16(n)), uint16(n))
}

func both32(n int) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(n)), uint32(n))
}
