package unpack

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// disk is like a disk image: text, noise and holes; its length is of no block.
func disk(size int) []byte {
	r := rand.New(rand.NewSource(1))
	b := make([]byte, size)
	for off := 0; off < size; off += 256 << 10 {
		part := b[off:min(size, off+256<<10)]
		switch off / (256 << 10) % 4 {
		case 0:
			r.Read(part)
		case 1:
			for i := range part {
				part[i] = "the quick brown fox jumps over the lazy dog\n"[r.Intn(44)]
			}
		}
	}
	return b
}

func gzipped(t testing.TB, b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func xzipped(t testing.TB, b []byte, c xz.WriterConfig) []byte {
	var buf bytes.Buffer
	w, err := c.NewWriter(&buf)
	require.NoError(t, err)
	_, err = w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func zstded(t testing.TB, b []byte, o ...zstd.EOption) []byte {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, o...)
	require.NoError(t, err)
	_, err = w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// try unpacks b and gives what came out.
func try(t testing.TB, ctx context.Context, b []byte, l Limits, progress func(done, total int64)) (*os.File, Result, error) {
	dir := t.TempDir()
	src, err := os.Create(filepath.Join(dir, "in"))
	require.NoError(t, err)
	t.Cleanup(func() { src.Close() })
	_, err = src.Write(b)
	require.NoError(t, err)
	_, err = src.Seek(0, io.SeekStart)
	require.NoError(t, err)
	dst, err := os.Create(filepath.Join(dir, "out"))
	require.NoError(t, err)
	t.Cleanup(func() { dst.Close() })
	r, err := File(ctx, src, dst, l, progress)
	return dst, r, err
}

func TestForms(t *testing.T) {
	want := disk(600<<10 + 12345)
	sum := sha512.Sum512(want)
	half := len(want)/2 + 77
	forms := map[string][]byte{
		"gz": gzipped(t, want), "gz members": append(gzipped(t, want[:half]), gzipped(t, want[half:])...),
		"xz": xzipped(t, want, xz.WriterConfig{}), "xz crc32": xzipped(t, want, xz.WriterConfig{CheckSum: xz.CRC32}),
		"xz sha256": xzipped(t, want, xz.WriterConfig{CheckSum: xz.SHA256}), "xz no check": xzipped(t, want, xz.WriterConfig{NoCheckSum: true}),
		"xz blocks":  xzipped(t, want, xz.WriterConfig{BlockSize: 200_000}),
		"xz streams": append(append(xzipped(t, want[:half], xz.WriterConfig{}), make([]byte, 8)...), xzipped(t, want[half:], xz.WriterConfig{})...),
		"xz padded":  append(xzipped(t, want, xz.WriterConfig{}), make([]byte, 4)...),
		"zst":        zstded(t, want), "zst best": zstded(t, want, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(maxWindow)),
		"zst frames": append(zstded(t, want[:half]), zstded(t, want[half:], zstd.WithSingleSegment(true))...),
	}
	for name, args := range map[string][]string{
		"xz tool": {"xz", "-6c"}, "xz tool threads": {"xz", "-T2", "-1", "--block-size=256KiB", "-c"}, "xz tool extreme": {"xz", "-3e", "-c"},
		"zstd tool": {"zstd", "-19", "--long=25", "-qc"}, "zstd tool threads": {"zstd", "-T2", "-qc"}, "gzip tool": {"gzip", "-9c"},
	} {
		if tool, err := exec.LookPath(args[0]); err == nil {
			cmd := exec.Command(tool, args[1:]...)
			cmd.Stdin = bytes.NewReader(want)
			out, err := cmd.Output()
			require.NoError(t, err, name)
			forms[name] = out
		}
	}
	for name, packed := range forms {
		t.Run(name, func(t *testing.T) {
			require.EqualValues(t, strings.Fields(strings.ReplaceAll(name, "zstd", "zst"))[0][:2], Detect(packed)[:2])
			var last, total int64
			f, r, err := try(t, t.Context(), packed, Limits{}, func(d, n int64) {
				require.GreaterOrEqual(t, d, last)
				last, total = d, n
			})
			require.NoError(t, err)
			require.Equal(t, Result{int64(len(want)), hex.EncodeToString(sum[:])}, r)
			require.EqualValues(t, len(packed), total)
			require.EqualValues(t, len(packed), last)
			got, err := os.ReadFile(f.Name())
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		})
	}
}

// Half of the disk is zeros: they take no room.
func TestSparse(t *testing.T) {
	size := 8 << 20
	f, _, err := try(t, t.Context(), zstded(t, disk(size)), Limits{}, nil)
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	require.EqualValues(t, size, st.Size)
	require.LessOrEqual(t, st.Blocks*512, int64(size/2+1<<20))

	f, r, err := try(t, t.Context(), gzipped(t, make([]byte, 5<<20)), Limits{Room: 1}, nil)
	require.NoError(t, err, "zeros need no room")
	require.EqualValues(t, 5<<20, r.Size)
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	require.LessOrEqual(t, st.Blocks*512, int64(1<<16))
}

func TestLimits(t *testing.T) {
	for name, packed := range map[string][]byte{"gz": gzipped(t, disk(2<<20)), "xz": xzipped(t, disk(2<<20), xz.WriterConfig{}), "zst": zstded(t, disk(2<<20))} {
		var limit *LimitError
		_, _, err := try(t, t.Context(), packed, Limits{Size: 2<<20 - 1}, nil)
		require.ErrorAs(t, err, &limit, name)
		require.False(t, limit.Room)
		require.NotEmpty(t, limit.Hint())
		_, _, err = try(t, t.Context(), packed, Limits{Size: 2 << 20}, nil)
		require.NoError(t, err, name)

		f, _, err := try(t, t.Context(), packed, Limits{Room: 300 << 10}, nil)
		require.ErrorAs(t, err, &limit, name)
		require.True(t, limit.Room)
		require.NotEmpty(t, limit.Hint())
		require.LessOrEqual(t, usage(t, f), int64(304<<10))
	}
}

func usage(t *testing.T, f *os.File) int64 {
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	return st.Blocks * 512
}

// Cut anywhere, followed by anything, or with a byte changed: never taken
// for whole.
func TestDamage(t *testing.T) {
	want := disk(300 << 10)[220<<10:] // noise and text
	sum := sha512.Sum512(want)
	for name, packed := range map[string][]byte{
		"gz": gzipped(t, want), "xz": xzipped(t, want, xz.WriterConfig{}), "zst": zstded(t, want), "xz blocks": xzipped(t, want, xz.WriterConfig{BlockSize: 30_000}),
	} {
		t.Run(name, func(t *testing.T) {
			step := len(packed) / 25
			for cut := 1; cut < len(packed); cut += max(1, min(step, len(packed)-cut-1)) {
				_, _, err := try(t, t.Context(), packed[:cut], Limits{}, nil)
				var e *Error
				require.ErrorAs(t, err, &e, "cut at %d", cut)
				require.NotEmpty(t, e.Hint())
				if cut > 20 {
					require.ErrorContains(t, err, "too early", "cut at %d", cut)
				}
			}
			for _, tail := range []string{"\x00", "x", "\x00\x00\x00\x00x", "garbage and more garbage", string(packed[:9])} {
				_, _, err := try(t, t.Context(), append(bytes.Clone(packed), tail...), Limits{}, nil)
				require.ErrorAs(t, err, new(*Error), "%q", tail)
			}
			for at := 0; at < len(packed); at += max(1, min(step, len(packed)-at-1)) {
				b := bytes.Clone(packed)
				b[at] ^= 0x41
				_, r, err := try(t, t.Context(), b, Limits{}, nil)
				if err == nil { // a gzip header has bytes that mean nothing to the content
					require.Equal(t, hex.EncodeToString(sum[:]), r.SHA512, "byte %d", at)
					continue
				}
				require.ErrorAs(t, err, new(*Error), "byte %d", at)
			}
		})
	}
	_, _, err := try(t, t.Context(), []byte("hello, world"), Limits{}, nil)
	require.ErrorContains(t, err, "not a file of gzip")
	_, _, err = try(t, t.Context(), nil, Limits{}, nil)
	require.ErrorAs(t, err, new(*Error))
}

// setDictionary makes the first block header of an .xz file ask for another
// dictionary: its last property byte, with the checksum made to fit.
func setDictionary(t testing.TB, packed []byte, at int, bits byte) []byte {
	b := bytes.Clone(packed)
	size := (int(b[at]) + 1) * 4
	header := b[at : at+size-4]
	i := bytes.LastIndex(header, []byte{filterLZMA2, 1})
	require.Positive(t, i)
	header[i+2] = bits
	sum := crc32.ChecksumIEEE(header)
	copy(b[at+size-4:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
	return b
}

func TestLargeWindowsAreRefused(t *testing.T) {
	plain := xzipped(t, disk(1<<20), xz.WriterConfig{})
	for name, c := range map[string]struct {
		packed []byte
		ok     bool
	}{
		"xz of 32 MiB":  {setDictionary(t, plain, xzHeaderSize, 26), true},
		"xz of 48 MiB":  {setDictionary(t, plain, xzHeaderSize, 27), false},
		"xz of 4 GiB":   {setDictionary(t, plain, xzHeaderSize, 40), false},
		"zst of 32 MiB": {streamed(t, disk(1<<20), 32<<20), true},
		"zst of 64 MiB": {streamed(t, disk(1<<20), 64<<20), false},
		"zst segment":   {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 1, 0, 0, 0x40, 1, 0, 0}, false}, // of 1 GiB, in one piece
	} {
		_, _, err := try(t, t.Context(), c.packed, Limits{}, nil)
		if c.ok {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, "more than 32 MiB", name)
		var e *Error
		require.ErrorAs(t, err, &e, name)
		require.Contains(t, e.Hint(), "base_image")
	}
	_, _, err := try(t, t.Context(), setDictionary(t, plain, xzHeaderSize, 41), Limits{}, nil)
	require.ErrorContains(t, err, "damaged")
}

// streamed is compressed without its size being known, so with a window.
func streamed(t testing.TB, b []byte, window int) []byte {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	for len(b) > 0 {
		n := min(len(b), 200_000)
		_, err = w.Write(b[:n])
		require.NoError(t, err)
		require.NoError(t, w.Flush())
		b = b[n:]
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// A later block may not ask for more than the first.
func TestEveryBlockIsLookedAt(t *testing.T) {
	first := xzipped(t, disk(100_000), xz.WriterConfig{})
	second := setDictionary(t, first, xzHeaderSize, 40)
	_, _, err := try(t, t.Context(), append(bytes.Clone(first), second...), Limits{}, nil)
	require.ErrorContains(t, err, "more than 32 MiB")
}

func TestCancelled(t *testing.T) {
	why := errors.New("enough")
	for name, packed := range map[string][]byte{"gz": gzipped(t, disk(4<<20)), "xz": xzipped(t, disk(4<<20), xz.WriterConfig{}), "zst": zstded(t, disk(4<<20))} {
		ctx, cancel := context.WithCancelCause(t.Context())
		_, _, err := try(t, ctx, packed, Limits{}, func(done, _ int64) { cancel(why) })
		require.ErrorIs(t, err, why, name)
		_, _, err = try(t, ctx, packed, Limits{}, nil)
		require.ErrorIs(t, err, why, name)
	}
}

func TestDiskErrorsStayWhatTheyAre(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full")
	}
	defer full.Close()
	src := filepath.Join(t.TempDir(), "in.zst")
	require.NoError(t, os.WriteFile(src, zstded(t, disk(1<<20)), 0o600))
	f, err := os.Open(src)
	require.NoError(t, err)
	defer f.Close()
	_, err = File(t.Context(), f, full, Limits{}, nil)
	require.ErrorIs(t, err, unix.ENOSPC)
}

const envUnpack = "CASTRA_TEST_UNPACK"

// init makes of the re-executed test binary a process that unpacks one file and
// prints its peak of resident memory in KiB, before and after.
func init() {
	path := os.Getenv(envUnpack)
	if path == "" {
		return
	}
	before := peak()
	src, err := os.Open(path)
	if err == nil {
		var dst *os.File
		if dst, err = os.Create(path + ".out"); err == nil {
			_, err = File(context.Background(), src, dst, Limits{}, nil)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(before, peak())
	os.Exit(0)
}

func peak() int {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	n, _ := strconv.Atoi(strings.TrimSpace(line))
	return n
}

// Must reach: at most 64 MB of memory, whatever the file.
func TestMemory(t *testing.T) {
	if peak() == 0 || raceDetector {
		t.Skip("no /proc here, or the race detector's own memory would be measured")
	}
	big := make([]byte, 36<<20) // more than the largest window; mostly zeros, to be made quickly
	copy(big, disk(4<<20))
	copy(big[34<<20:], disk(2<<20))
	files := map[string][]byte{
		"go.xz":  append(setDictionary(t, xzipped(t, big[:1<<20], xz.WriterConfig{}), xzHeaderSize, 26), setDictionary(t, xzipped(t, big[:1<<20], xz.WriterConfig{}), xzHeaderSize, 26)...),
		"go.zst": streamed(t, big, maxWindow),
		"go.gz":  gzipped(t, big[:10<<20]),
	}
	for name, args := range map[string][]string{
		"tool.xz": {"xz", "-6c"}, "threads.xz": {"xz", "-T2", "--lzma2=preset=1,dict=32MiB", "--block-size=8MiB", "-c"}, "tool.zst": {"zstd", "-19", "--long=25", "-qc"},
	} {
		if tool, err := exec.LookPath(args[0]); err == nil {
			cmd := exec.Command(tool, args[1:]...)
			cmd.Stdin = bytes.NewReader(big)
			out, err := cmd.Output()
			require.NoError(t, err, name)
			files[name] = out
		}
	}
	dir := t.TempDir()
	for name, packed := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, packed, 0o600))
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envUnpack+"="+path)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		var before, after int
		_, err = fmt.Sscan(string(out), &before, &after)
		require.NoError(t, err, string(out))
		t.Logf("%s: %d KiB, of which unpacking %d", name, after, after-before)
		require.Less(t, after-before, 64_000_000/1024, name)
	}
}

func FuzzFile(f *testing.F) {
	small := disk(1000)
	f.Add(gzipped(f, small))
	f.Add(xzipped(f, small, xz.WriterConfig{}))
	f.Add(xzipped(f, small, xz.WriterConfig{BlockSize: 400, CheckSum: xz.SHA256}))
	f.Add(zstded(f, small))
	f.Fuzz(func(t *testing.T, b []byte) {
		f, r, err := try(t, t.Context(), b, Limits{Size: 1 << 20}, nil)
		st, statErr := f.Stat()
		require.NoError(t, statErr)
		if st.Size() > 1<<20 || err == nil && r.Size != st.Size() {
			t.Fatalf("%d bytes came out, %+v", st.Size(), r)
		}
	})
}
