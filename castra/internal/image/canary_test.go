package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/soak"
)

// sly are images that the header check takes, and should, though they hold what could lead a careless reader to the file secret.
func sly(secret string) map[string][]byte {
	be := binary.BigEndian
	text := func(s string) []byte { return rawDisk(func(b []byte) { copy(b, s) }) }
	flat := fmt.Sprintf("version=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 128 FLAT %q 0\n", secret)
	return map[string][]byte{
		"vmdk behind a comment":    text("# a disk of mine\n" + flat),
		"vmdk behind empty lines":  text("\n\n" + flat),
		"json in the first sector": text(fmt.Sprintf(`json:{"driver":"raw","file":{"driver":"file","filename":%q}}`, secret)),
		"path in the first sector": text(secret + "\x00"),
		"cloop":                    text("#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=" + secret),
		"qcow2 in the second": rawDisk(func(b []byte) {
			copy(b[512:], with(func(b []byte) {
				be.PutUint64(b[8:], 200)
				be.PutUint32(b[16:], uint32(len(secret)))
				copy(b[200:], secret)
			})[:512])
			b[510], b[511] = 0x55, 0xaa
		}),
		"backing name without its place": with(func(b []byte) {
			be.PutUint32(b[16:], uint32(len(secret)))
			copy(b[200:], secret)
		}),
		"backing format alone": with(func(b []byte) {
			be.PutUint32(b[104:], 0xe2792aca)
			be.PutUint32(b[108:], 3)
			copy(b[112:], "raw")
		}),
		"data file name behind the end": with(func(b []byte) {
			be.PutUint32(b[112:], extensionDataFile)
			be.PutUint32(b[116:], uint32(len(secret)))
			copy(b[120:], secret)
		}),
		"raw external data, announced as compatible": with(func(b []byte) { be.PutUint64(b[88:], 2) }),
		"all compatible features":                    with(func(b []byte) { be.PutUint64(b[80:], 1<<64-1) }),
		"clusters behind the file":                   with(func(b []byte) { be.PutUint64(b[1024:], 1<<63|1<<40) }),
		"clusters in the header":                     with(func(b []byte) { be.PutUint64(b[1024:], 1<<63) }),
		"version 2 with a tail": with(func(b []byte) {
			be.PutUint32(b[4:], 2)
			clear(b[72:104])
			copy(b[200:], secret)
		}),
	}
}

// Fault D6: of what the header check takes, QEMU gives no byte of another file to the guest, since each overlay names its base's
// format. Where QEMU guesses, it does give them.
func TestNoHostByteInTheGuestDiskSoak(t *testing.T) {
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	const canary = "canary-7f3a9c41"
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, bytes.Repeat([]byte(canary+"\n"), 4096), 0o600))
	disk := func(args ...string) []byte { // what a guest would read; nothing where QEMU refuses the image
		out := filepath.Join(dir, "out")
		require.NoError(t, os.WriteFile(out, nil, 0o600))
		_ = exec.Command(img, append(append([]string{"convert", "-O", "raw"}, args...), out)...).Run()
		data, err := os.ReadFile(out)
		require.NoError(t, err)
		return data
	}
	read, fooled, leaks := 0, 0, 0
	for name, data := range sly(secret) {
		path, overlay := filepath.Join(dir, "base"), filepath.Join(dir, "overlay")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		info, err := Inspect(path)
		require.NoError(t, err, name)
		_, err = qemu.ReserveOverlay(overlay)
		require.NoError(t, err)
		require.NoError(t, qemu.CreateOverlay(qemu.Backing{Path: path, Format: info.Format}, 0, overlay), name)
		guest := disk("-f", "qcow2", overlay)
		if len(guest) > 0 {
			read++
		}
		if bytes.Contains(guest, []byte(canary)) {
			leaks++
			t.Errorf("%s: the guest reads the host's file", name)
		}
		if bytes.Contains(disk(path), []byte(canary)) {
			fooled++
		}
		require.NoError(t, os.Remove(overlay))
	}
	require.Positive(t, fooled, "one of these images shows what guessing would do")
	require.GreaterOrEqual(t, read, 9, "QEMU opens them as what they are")
	soak.AtMost(t, "D6", "host canaries in the guest's disk", 0, float64(leaks))
}
