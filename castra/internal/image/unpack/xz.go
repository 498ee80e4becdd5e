package unpack

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"runtime"

	"github.com/ulikunitz/xz/lzma"
)

// The .xz container, as "The .xz File Format" 1.2.1 of the XZ Utils lays it
// out. It is read here and not by a library, because every block may ask for
// another dictionary, and each is to be refused before it is given memory; the
// index is compared by its digest, so that it takes none.

var (
	xzMagic  = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	xzFooter = []byte("YZ")
)

const (
	xzHeaderSize    = 12
	xzFooterSize    = 12
	filterLZMA2     = 0x21
	hasPackedSize   = 0x40
	hasSize         = 0x80
	reservedFlags   = 0x3c
	maxBlocks       = 1 << 17 // of 512 KiB each for the largest disk
	largeDictionary = 8 << 20 // one whose garbage is worth collecting
	unknownSize     = ^uint64(0)
	maxVarint       = 1<<63 - 1
)

// xzReader reads a .xz file; it counts what it reads and takes its CRC.
type xzReader struct {
	in     *bufio.Reader
	n      uint64
	crc    uint32
	blocks int
	buf    []byte
}

// xzStream is the state of one stream.
type xzStream struct {
	flags   [2]byte
	records hash.Hash // of the sizes of all blocks
	count   uint64
}

func unxz(in *bufio.Reader, out io.Writer) error {
	r := &xzReader{in: in, buf: make([]byte, blockSize)}
	for {
		if err := r.stream(out); err != nil {
			return err
		}
		if more, err := r.padding(); err != nil || !more {
			return err
		}
	}
}

func damaged(problem string) error { return &Error{XZ, problem, helpDamaged, nil} }

func (r *xzReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.n += uint64(n)
	return n, err
}

func (r *xzReader) ReadByte() (byte, error) {
	b, err := r.in.ReadByte()
	if err == nil {
		r.n++
		r.crc = crc32.Update(r.crc, crc32.IEEETable, []byte{b})
	}
	return b, err
}

// bytes reads n bytes and takes their CRC too.
func (r *xzReader) bytes(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	r.crc = crc32.Update(r.crc, crc32.IEEETable, b)
	return b, nil
}

// checkCRC reads the CRC of what was read since r.crc was set to 0.
func (r *xzReader) checkCRC(of string) error {
	want := r.crc
	b, err := r.bytes(4)
	if err == nil && binary.LittleEndian.Uint32(b) != want {
		err = damaged("the checksum of its " + of + " is wrong")
	}
	return err
}

// varint reads a number of the format's own coding.
func (r *xzReader) varint() (uint64, error) {
	v, err := binary.ReadUvarint(r)
	if err != nil || v > maxVarint {
		return 0, firstOf(err, damaged("a number in it is out of range"))
	}
	return v, nil
}

func firstOf(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// padding skips the zeros after a stream and tells whether another one follows.
func (r *xzReader) padding() (bool, error) {
	for {
		four, err := r.in.Peek(4)
		if len(four) == 0 {
			return false, ignoreEOF(err)
		}
		if len(four) == 4 && bytes.HasPrefix(xzMagic, four) {
			return true, nil
		}
		if len(four) < 4 || !bytes.Equal(four, zeros[:4]) {
			return false, damaged("other bytes follow the compressed ones")
		}
		_, _ = r.in.Discard(4) // they are there: they were peeked at
	}
}

func ignoreEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // Peek gives it as it is
		return nil
	}
	return err
}

func (r *xzReader) stream(out io.Writer) error {
	head, err := r.bytes(xzHeaderSize)
	if err != nil {
		return err
	}
	s := xzStream{flags: [2]byte(head[6:8]), records: sha256.New()}
	check := newCheck(s.flags[1])
	switch {
	case !bytes.HasPrefix(head, xzMagic):
		return damaged("a stream does not begin as one")
	case crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]):
		return damaged("the checksum of its header is wrong")
	case s.flags[0] != 0 || check == nil:
		return &Error{XZ, "it has a kind of checksum that is not known", helpByHand, nil}
	}
	for {
		r.crc, r.n = 0, 0
		size, err := r.ReadByte()
		if err != nil {
			return err
		}
		if size == 0 {
			return r.tail(&s)
		}
		if r.blocks++; r.blocks > maxBlocks {
			return damaged("it has too many blocks")
		}
		if err := r.block(int(size), &s, check, out); err != nil {
			return err
		}
		check.Reset()
	}
}

// xzBlock is what the header of a block says.
type xzBlock struct{ packed, size, dictionary uint64 }

// block unpacks a block, the first byte of which is read.
func (r *xzReader) block(first int, s *xzStream, check hash.Hash, out io.Writer) error {
	h, err := r.blockHeader((first + 1) * 4)
	if err != nil {
		return err
	}
	header := r.n
	if h.dictionary > largeDictionary {
		runtime.GC() // so that the dictionary of the block before goes first
	}
	z, err := lzma.Reader2Config{DictCap: int(h.dictionary)}.NewReader2(r)
	if err != nil {
		return err
	}
	size, err := io.CopyBuffer(io.MultiWriter(check, out), onlyReader{z}, r.buf)
	if err == nil && !z.EOS() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	packed := r.n - header
	if h.packed != unknownSize && h.packed != packed || h.size != unknownSize && h.size != uint64(size) {
		return damaged("a block is not of the size that it says")
	}
	pad, err := r.bytes(int(-packed & 3))
	if err != nil {
		return err
	}
	sum, err := r.bytes(check.Size())
	if err != nil {
		return err
	}
	if !bytes.Equal(pad, zeros[:len(pad)]) || !bytes.Equal(sum, checkSum(check)) {
		return damaged("the checksum of a block is wrong")
	}
	s.count++
	record(s.records, header+packed+uint64(len(sum)), uint64(size))
	return nil
}

// onlyReader hides other methods, so that the copy uses its buffer.
type onlyReader struct{ io.Reader }

func record(h hash.Hash, unpadded, size uint64) {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], unpadded)
	binary.BigEndian.PutUint64(b[8:], size)
	h.Write(b[:])
}

// blockHeader reads the header of a block, of length bytes with the first one.
func (r *xzReader) blockHeader(length int) (xzBlock, error) {
	b, err := r.bytes(length - 1 - 4)
	if err != nil {
		return xzBlock{}, err
	}
	if err := r.checkCRC("block header"); err != nil {
		return xzBlock{}, err
	}
	h := xzBlock{packed: unknownSize, size: unknownSize}
	flags, fields := b[0], bytes.NewReader(b[1:])
	field := func(v *uint64) {
		if n, e := binary.ReadUvarint(fields); e == nil && n <= maxVarint {
			*v = n
		} else {
			err = damaged("a block header is cut short")
		}
	}
	if flags&hasPackedSize != 0 {
		field(&h.packed)
	}
	if flags&hasSize != 0 {
		field(&h.size)
	}
	var filter, properties uint64
	field(&filter)
	field(&properties)
	if err != nil {
		return h, err
	}
	if flags&reservedFlags != 0 || flags&3 != 0 || filter != filterLZMA2 || properties != 1 {
		return h, &Error{XZ, "it has a filter other than LZMA2", helpByHand, nil}
	}
	bits, err := fields.ReadByte()
	rest := b[len(b)-fields.Len():]
	if err != nil || bits > 40 || !bytes.Equal(rest, zeros[:len(rest)]) {
		return h, damaged("a block header is damaged")
	}
	return h, h.setDictionary(bits)
}

// setDictionary reads the property of the filter: a dictionary of 2 or 3 times
// a power of two. One larger than the block is never filled.
func (h *xzBlock) setDictionary(bits byte) error {
	h.dictionary = max(lzma.MinDictCap, min(uint64(2|bits&1)<<(bits/2+11), h.size))
	if h.dictionary > maxWindow {
		return &Error{XZ, "it needs a dictionary of more than 32 MiB", helpWindow, nil}
	}
	return nil
}

// tail reads the index, its first byte is read, and the footer.
func (r *xzReader) tail(s *xzStream) error {
	count, err := r.varint()
	if err != nil {
		return err
	}
	if count != s.count {
		return damaged("its index is of other blocks")
	}
	records := sha256.New()
	for range count {
		unpadded, err := r.varint()
		if err != nil {
			return err
		}
		size, err := r.varint()
		if err != nil {
			return err
		}
		record(records, unpadded, size)
	}
	pad, err := r.bytes(int(-r.n & 3))
	if err != nil {
		return err
	}
	if err := r.checkCRC("index"); err != nil {
		return err
	}
	if !bytes.Equal(pad, zeros[:len(pad)]) || !bytes.Equal(records.Sum(nil), s.records.Sum(nil)) {
		return damaged("its index is of other blocks")
	}
	index := r.n
	foot, err := r.bytes(xzFooterSize)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if le.Uint32(foot) != crc32.ChecksumIEEE(foot[4:10]) || uint64(le.Uint32(foot[4:])+1)*4 != index ||
		[2]byte(foot[8:10]) != s.flags || !bytes.Equal(foot[10:], xzFooter) {
		return damaged("its footer is damaged")
	}
	return nil
}

// newCheck gives the checksum of the blocks; nil where it is not known.
func newCheck(kind byte) hash.Hash {
	switch kind {
	case 0:
		return noCheck{}
	case 1:
		return crc32.NewIEEE()
	case 4:
		return crc64.New(crc64Table)
	case 10:
		return sha256.New()
	}
	return nil
}

var crc64Table = crc64.MakeTable(crc64.ECMA)

// checkSum is the sum as the file has it: CRCs are little-endian there.
func checkSum(h hash.Hash) []byte {
	switch h := h.(type) {
	case hash.Hash32:
		return binary.LittleEndian.AppendUint32(nil, h.Sum32())
	case hash.Hash64:
		return binary.LittleEndian.AppendUint64(nil, h.Sum64())
	}
	return h.Sum(nil)
}

// noCheck is the checksum of a stream that has none.
type noCheck struct{}

func (noCheck) Write(p []byte) (int, error) { return len(p), nil }
func (noCheck) Sum(b []byte) []byte         { return b }
func (noCheck) Reset()                      {}
func (noCheck) Size() int                   { return 0 }
func (noCheck) BlockSize() int              { return 1 }
