package small

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// Fields of the x86 boot protocol's header, and marks of what is inside.
const (
	bzSetupSectors  = 0x1f1
	bzMagic         = 0x202
	bzPayloadOffset = 0x248
	bzPayloadLength = 0x24c

	lz4Legacy   = 0x184c2102
	maxVMLinux  = 256 << 20
	xenPVHEntry = "\x12\x00\x00\x00Xen\x00" // type and name of the ELF note that says where PVH boot enters
)

// directKernel returns what to give to -kernel on amd64: the ELF inside a bzImage, so that no guest spends time on unpacking it and
// QEMU enters it without real mode. Where the kernel is packed otherwise, or lacks that entry, it is the bzImage itself.
func directKernel(bzImage []byte) []byte {
	vmlinux, err := unpackKernel(bzImage)
	if err != nil {
		return bzImage
	}
	file, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return bzImage
	}
	for _, p := range file.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err == nil && bytes.Contains(notes, []byte(xenPVHEntry)) {
			return vmlinux
		}
	}
	return bzImage
}

func unpackKernel(bzImage []byte) ([]byte, error) {
	if len(bzImage) < 1024 || string(bzImage[bzMagic:bzMagic+4]) != "HdrS" {
		return nil, errors.New("not a bzImage")
	}
	offset := (int64(bzImage[bzSetupSectors])+1)*sectorSize + int64(binary.LittleEndian.Uint32(bzImage[bzPayloadOffset:]))
	length := int64(binary.LittleEndian.Uint32(bzImage[bzPayloadLength:]))
	if offset+length > int64(len(bzImage)) || length < 8 {
		return nil, errors.New("bzImage: the kernel lies outside the file")
	}
	in := bzImage[offset : offset+length]
	if binary.LittleEndian.Uint32(in) != lz4Legacy {
		return nil, errors.New("bzImage: not packed with LZ4")
	}
	size := binary.LittleEndian.Uint32(in[len(in)-4:]) // the kernel's build appends it
	if size > maxVMLinux {
		return nil, fmt.Errorf("bzImage: a kernel of %d bytes", size)
	}
	out := make([]byte, 0, size)
	for in = in[4 : len(in)-4]; len(in) > 4; {
		n := binary.LittleEndian.Uint32(in)
		if int64(n) > int64(len(in)-4) {
			return nil, errors.New("bzImage: LZ4 block cut short")
		}
		var err error
		if out, err = lz4Block(out, in[4:4+n]); err != nil {
			return nil, err
		}
		in = in[4+n:]
	}
	if len(out) != int(size) {
		return nil, fmt.Errorf("bzImage: unpacked to %d bytes, should be %d", len(out), size)
	}
	return out, nil
}

var errLZ4 = errors.New("bzImage: LZ4 block is damaged")

// lz4Block appends one unpacked block to out. A block is a list of sequences: literal bytes, then a copy of earlier output.
func lz4Block(out, in []byte) ([]byte, error) {
	start := len(out)
	for len(in) > 0 {
		token := in[0]
		in = in[1:]
		literals, rest, ok := lz4Length(int(token>>4), in)
		if !ok || literals > len(rest) || len(out)+literals > cap(out) {
			return nil, errLZ4
		}
		out = append(out, rest[:literals]...)
		in = rest[literals:]
		if len(in) == 0 {
			return out, nil // the last sequence is literals alone
		}
		if len(in) < 2 {
			return nil, errLZ4
		}
		distance := int(binary.LittleEndian.Uint16(in))
		length, rest, ok := lz4Length(int(token&15), in[2:])
		length += 4
		if !ok || distance == 0 || distance > len(out)-start || len(out)+length > cap(out) {
			return nil, errLZ4
		}
		in = rest
		for from := len(out) - distance; length > 0; from, length = from+1, length-1 {
			out = append(out, out[from]) // byte by byte: the copy may overlap what it makes
		}
	}
	return out, nil
}

// lz4Length reads a length whose first four bits say 15 when more bytes follow.
func lz4Length(n int, in []byte) (int, []byte, bool) {
	if n < 15 {
		return n, in, true
	}
	for i, b := range in {
		n += int(b)
		if b < 255 {
			return n, in[i+1:], n >= 0
		}
	}
	return 0, nil, false
}
