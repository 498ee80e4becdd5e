package qemu

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tool runs a program of QEMU, which the test needs, and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	require.NoError(t, err, "%s %q: %s", name, args, out)
	return string(out)
}

// overlayOn writes an overlay on backing, as large as that is.
func overlayOn(t *testing.T, backing string) (path string) {
	t.Helper()
	size, err := virtualSize(backing)
	require.NoError(t, err)
	f, err := os.Create(filepath.Join(t.TempDir(), "overlay"))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, writeOverlay(f, Backing{backing, "qcow2"}, size))
	return f.Name()
}

// imageInfo is what qemu-img says of an image, but for its own name and the
// room it takes on the host.
func imageInfo(t *testing.T, path string) map[string]any {
	t.Helper()
	var info map[string]any
	require.NoError(t, json.Unmarshal([]byte(tool(t, "qemu-img", "info", "--output=json", path)), &info))
	delete(info, "filename")
	delete(info, "actual-size")
	for _, child := range asList(info["children"]) { // since QEMU 8.1: the file below, by name and length
		delete(child.(map[string]any), "info")
	}
	return info
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

func TestOverlayIsQemuImgs(t *testing.T) {
	for name, size := range map[string]int64{
		"small":       1 << 20,
		"10 GiB":      10 << 30,
		"2 TiB":       2 << 40,
		"a sector":    512,
		"odd":         5<<30 + 3*512,
		"a cluster":   clusterSize,
		"an L2":       l2Covers,
		"L2 and some": l2Covers + 512,
		"20 TiB":      20 << 40,
		"a,b":         1 << 30,
		"a b ":        1 << 30,
		"größe-盘":     1 << 30,
		"'\"$(:%s)":   1 << 30,
		"json:{}":     1 << 30,
		"line\nbreak": 1 << 30,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := filepath.Join(t.TempDir(), name)
			tool(t, "qemu-img", "create", "-q", "-f", "qcow2", base, strconv.FormatInt(size, 10))
			theirs := filepath.Join(t.TempDir(), "theirs")
			tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, theirs)
			ours := overlayOn(t, base)

			require.Equal(t, imageInfo(t, theirs), imageInfo(t, ours))
			require.EqualValues(t, size, imageInfo(t, ours)["virtual-size"])
			var check map[string]any
			require.NoError(t, json.Unmarshal([]byte(tool(t, "qemu-img", "check", "--output=json", ours)), &check))
			require.Zero(t, check["check-errors"])
			require.NotContains(t, check, "leaks")
			require.NotContains(t, check, "corruptions")
			require.Contains(t, tool(t, "qemu-img", "compare", base, ours), "identical")
		})
	}
}

// An overlay on a raw image, or of another size than its base, is what qemu-img makes, and the guest reads the base and then zeros.
func TestCreateOverlay(t *testing.T) {
	for name, c := range map[string]struct {
		format           string
		base, size, want int64
	}{
		"qcow2":             {"qcow2", 1 << 20, 0, 1 << 20},
		"qcow2 that grows":  {"qcow2", 1 << 20, 10 << 30, 10 << 30},
		"qcow2 of its size": {"qcow2", 1 << 20, 1 << 20, 1 << 20},
		"raw":               {"raw", 1 << 20, 0, 1 << 20},
		"raw that grows":    {"raw", 1 << 20, 3 << 40, 3 << 40},
		"raw and a bit":     {"raw", 1<<20 + 100, 0, 1<<20 + 512},
	} {
		t.Run(name, func(t *testing.T) {
			base, theirs, ours := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "theirs"), filepath.Join(t.TempDir(), "ours")
			tool(t, "qemu-img", "create", "-q", "-f", c.format, base, strconv.FormatInt(c.base, 10))
			if c.format == "raw" {
				require.NoError(t, os.Truncate(base, c.base))
			}
			tool(t, "qemu-io", "-f", c.format, "-c", "write -P 0x11 0 1M", base)
			args := []string{"create", "-q", "-f", "qcow2", "-F", c.format, "-b", base, theirs}
			if c.size != 0 {
				args = append(args, strconv.FormatInt(c.size, 10))
			}
			tool(t, "qemu-img", args...)
			_, err := ReserveOverlay(ours)
			require.NoError(t, err)
			require.NoError(t, CreateOverlay(Backing{base, c.format}, c.size, ours))

			require.Equal(t, imageInfo(t, theirs), imageInfo(t, ours))
			require.EqualValues(t, c.want, imageInfo(t, ours)["virtual-size"])
			require.Equal(t, c.format, imageInfo(t, ours)["backing-filename-format"])
			require.Contains(t, tool(t, "qemu-img", "check", ours), "No errors were found")
			out := tool(t, "qemu-io", "-c", "read -P 0x11 0 1M", "-c", "write -P 0x22 64k 64k", "-c", "read -P 0x22 64k 64k", ours)
			if c.want > 1<<30 {
				out = tool(t, "qemu-io", "-c", "read -P 0 1M 4M", "-c", "write -P 0x33 1G 1M", "-c", "read -P 0x33 1G 1M", "-c", "read -P 0x11 0 64k", ours)
			}
			require.NotContains(t, out, "failed")
			size, err := DiskSize(ours)
			require.NoError(t, err)
			require.Equal(t, c.want, size)
		})
	}
}

func TestCreateOverlayRefused(t *testing.T) {
	dir := t.TempDir()
	raw, overlay := filepath.Join(dir, "raw"), filepath.Join(dir, "overlay")
	require.NoError(t, os.WriteFile(raw, make([]byte, 3<<20+1), 0o600))
	_, err := ReserveOverlay(overlay)
	require.NoError(t, err)

	var small *SizeError
	require.ErrorAs(t, CreateOverlay(Backing{raw, "raw"}, 1<<20, overlay), &small)
	require.Equal(t, SizeError{raw, 1 << 20, 3<<20 + 512}, *small)
	require.ErrorContains(t, small, "a disk of 1048576 bytes is smaller than that of "+raw)
	require.Contains(t, small.Hint(), "4 MiB at least")

	for says, c := range map[string]struct {
		base Backing
		size int64
	}{
		`format "" is none of`:     {Backing{raw, ""}, 0},
		`format "vmdk" is none of`: {Backing{raw, "vmdk"}, 0},
		"is no qcow2":              {Backing{raw, "qcow2"}, 0},
		"no regular file":          {Backing{dir, "raw"}, 0},
		"0 bytes is out of range":  {Backing{overlay, "raw"}, 0},
		"is not possible":          {Backing{raw, "raw"}, 4<<20 + 1},
		"disk of -1 bytes":         {Backing{raw, "raw"}, -1},
	} {
		var refused *OverlayError
		require.ErrorAs(t, CreateOverlay(c.base, c.size, overlay), &refused, says)
		require.ErrorContains(t, refused, says)
		require.NotEmpty(t, refused.Hint())
	}
	require.ErrorIs(t, CreateOverlay(Backing{filepath.Join(dir, "none"), "raw"}, 0, overlay), os.ErrNotExist)
	require.ErrorIs(t, CreateOverlay(Backing{raw, "raw"}, 0, filepath.Join(dir, "none")), os.ErrNotExist)
	st, err := os.Stat(overlay)
	require.NoError(t, err)
	require.Zero(t, st.Size(), "nothing was written")
}

// The longest path that fits is one that QEMU follows.
func TestOverlayOnALongPath(t *testing.T) {
	dir := t.TempDir()
	for len(dir)+1+200 < maxBacking-1 {
		dir = filepath.Join(dir, strings.Repeat("d", 200))
	}
	require.NoError(t, os.MkdirAll(dir, 0o700))
	base := filepath.Join(dir, strings.Repeat("f", maxBacking-len(dir)-1))
	require.Len(t, base, maxBacking)
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "1M")
	require.Equal(t, base, imageInfo(t, overlayOn(t, base))["backing-filename"])

	f, err := os.Create(filepath.Join(t.TempDir(), "overlay"))
	require.NoError(t, err)
	defer f.Close()
	var refused *OverlayError
	require.ErrorAs(t, writeOverlay(f, Backing{base + "f", "qcow2"}, 1<<20), &refused)
	require.ErrorContains(t, refused, "the backing file's path has 1024 bytes, and a qcow2 holds 1023")
	require.NotEmpty(t, refused.Hint())
}

func TestOverlayTakesWrites(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "3G")
	tool(t, "qemu-io", "-c", "write -P 0x11 0 1M", "-c", "write -P 0x22 2G 64k", base)
	before, err := os.ReadFile(base)
	require.NoError(t, err)

	ours := overlayOn(t, base)
	tool(t, "qemu-io", "-c", "read -P 0x11 0 1M", "-c", "read -P 0x22 2G 64k", ours)
	tool(t, "qemu-io", "-c", "write -P 0x33 4k 4k", "-c", "write -P 0x44 1G 20M", "-c", "write -z 2G 64k", "-c", "write -P 0x55 3071M 1M", ours)
	require.Contains(t, tool(t, "qemu-img", "check", ours), "No errors were found")
	flat := filepath.Join(t.TempDir(), "flat")
	tool(t, "qemu-img", "convert", "-O", "qcow2", ours, flat)
	for _, image := range []string{ours, flat} {
		out := tool(t, "qemu-io", "-c", "read -P 0x11 0 4k", "-c", "read -P 0x33 4k 4k", "-c", "read -P 0x11 8k 1000k",
			"-c", "read -P 0x44 1G 20M", "-c", "read -P 0 2G 64k", "-c", "read -P 0x55 3071M 1M", image)
		require.NotContains(t, out, "failed")
	}
	after, err := os.ReadFile(base)
	require.NoError(t, err)
	require.Equal(t, before, after, "the backing file is not written to")
}

func TestOverlayReplacesWhatWasThere(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "1G")
	f, err := os.Create(filepath.Join(t.TempDir(), "overlay"))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString(strings.Repeat("x", 10*clusterSize))
	require.NoError(t, err)
	require.NoError(t, writeOverlay(f, Backing{base, "qcow2"}, 1<<30))
	require.Contains(t, tool(t, "qemu-img", "check", f.Name()), "No errors were found")
}

func TestOverlayRefused(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "overlay"))
	require.NoError(t, err)
	defer f.Close()
	for name, x := range map[string]struct {
		backing string
		size    int64
		says    string
	}{
		"relative":      {"base", 1 << 20, "overlay: base: the backing file's path is not absolute"},
		"no path":       {"", 1 << 20, "the backing file's path is not absolute"},
		"no size":       {"/base", 0, f.Name() + ": a disk of 0 bytes is not possible"},
		"negative":      {"/base", -512, "a disk of -512 bytes is not possible"},
		"half a sector": {"/base", 1<<20 + 256, "a disk of 1048832 bytes is not possible"},
		"too large":     {"/base", maxVirtualSize + 512, "is not possible"},
	} {
		t.Run(name, func(t *testing.T) {
			var refused *OverlayError
			require.ErrorAs(t, writeOverlay(f, Backing{x.backing, "qcow2"}, x.size), &refused)
			require.ErrorContains(t, refused, x.says)
			require.NotEmpty(t, refused.Hint())
		})
	}
	stat, err := f.Stat()
	require.NoError(t, err)
	require.Zero(t, stat.Size(), "nothing was written")

	closed, err := os.Create(filepath.Join(t.TempDir(), "closed"))
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	require.ErrorIs(t, writeOverlay(closed, Backing{"/base", "qcow2"}, 1<<20), os.ErrClosed)
}

func TestVirtualSize(t *testing.T) {
	head := func(size uint64) string {
		b := make([]byte, 32)
		binary.BigEndian.PutUint32(b, qcow2Magic)
		binary.BigEndian.PutUint64(b[24:], size)
		return string(b)
	}
	for name, x := range map[string]struct {
		content string
		size    int64
		says    string
	}{
		"sectors":         {head(3 << 30), 3 << 30, ""},
		"and a half":      {head(3<<30 + 300), 3 << 30, ""},
		"empty":           {"", 0, "is no qcow2"},
		"short":           {head(1 << 30)[:31], 0, "is no qcow2"},
		"raw":             {strings.Repeat("\x00", 512), 0, "is no qcow2"},
		"no disk":         {head(0), 0, "0 bytes is out of range"},
		"a disk too many": {head(1 << 63), 0, "9223372036854775808 bytes is out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "base")
			require.NoError(t, os.WriteFile(path, []byte(x.content), 0o600))
			size, err := virtualSize(path)
			require.Equal(t, x.size, size)
			if x.says == "" {
				require.NoError(t, err)
				return
			}
			var refused *OverlayError
			require.ErrorAs(t, err, &refused)
			require.ErrorContains(t, refused, x.says)
			require.Contains(t, refused.Error(), path)
			require.NotEmpty(t, refused.Hint())
		})
	}
	_, err := virtualSize(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
