package small

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxUnpacked bounds what a kernel or module may unpack to, in bytes.
const maxUnpacked = 256 << 20

// unpackData unpacks data in a format by its name in EFI zboot images: gzip, xz or zstd.
func unpackData(format string, data []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch in := bytes.NewReader(data); format {
	case "gzip":
		r, err = gzip.NewReader(in)
	case "xz", "xzkern":
		r, err = xz.NewReader(in)
	case "zstd", "zstd22":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked)); err == nil {
			defer z.Close()
			r = z
		}
	default:
		err = fmt.Errorf("unknown format %q", format)
	}
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err == nil && len(out) > maxUnpacked {
		err = errors.New("unpacks to more than a kernel can be")
	}
	return out, err
}

// Fields of an arm64 kernel image (the kernel's Documentation/arm64/booting) and of one packed as EFI zboot
// (drivers/firmware/efi/libstub/zboot-header.S).
const (
	imageMagic   = "ARM\x64"
	imageMagicAt = 56

	zbootMagic     = "MZ\x00\x00zimg"
	zbootOffset    = 8
	zbootLength    = 12
	zbootFormat    = 24
	zbootFormatEnd = 56
)

// arm64Image returns the plain kernel image inside a kernel file, which QEMU and UEFI both start without unpacking. Debian 12
// ships it plain, Ubuntu with gzip, other releases may as zboot. What is none of these is returned as it is.
func arm64Image(file []byte) []byte {
	out := file
	var err error
	switch {
	case bytes.HasPrefix(file, []byte("\x1f\x8b")):
		out, err = unpackData("gzip", file)
	case len(file) > zbootFormatEnd && string(file[:len(zbootMagic)]) == zbootMagic:
		offset, length := binary.LittleEndian.Uint32(file[zbootOffset:]), binary.LittleEndian.Uint32(file[zbootLength:])
		if int64(offset)+int64(length) > int64(len(file)) {
			return file
		}
		format, _, _ := bytes.Cut(file[zbootFormat:zbootFormatEnd], []byte{0})
		out, err = unpackData(string(format), file[offset:offset+length])
	}
	if err != nil || len(out) < imageMagicAt+4 || string(out[imageMagicAt:imageMagicAt+4]) != imageMagic {
		return file
	}
	return out
}
