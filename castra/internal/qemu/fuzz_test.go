package qemu

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What `info usernet` tells is a port of this computer and one of the guest, or an error.
func FuzzUsernet(f *testing.F) {
	for _, text := range []string{
		"  TCP[HOST_FORWARD]  14       127.0.0.1 37651       10.0.2.15    22     0     0\r\n", "  UDP[HOST_FORWARD]  15         0.0.0.0  5353       10.0.2.15    53     0     0\r\n",
		"TCP[HOST_FORWARD] 1 127.0.0.1 -1 10.0.2.15 99999999999", "[HOST_FORWARD] 1 ::1 0 10.0.2.15 0", "TCP[HOST_FORWARD] 1 127.0.0.1 70000 10.0.2.15 22", "TCP[ESTABLISHED] 1 2 3 4 5", "", "\x00[HOST_FORWARD] a b c d e",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		forwards, err := parseUsernet(text)
		if err != nil {
			require.Empty(t, forwards)
			return
		}
		for _, forward := range forwards {
			require.NotNil(t, net.ParseIP(forward.HostIP))
			require.Zero(t, forward.HostPort>>16)
			require.Zero(t, forward.GuestPort>>16)
		}
	})
}

// A descriptor of firmware is another program's file: what is taken from it are two absolute paths and formats that QEMU is told.
func FuzzDescriptor(f *testing.F) {
	const whole = `{"interface-types":["uefi"],"mapping":{"device":"flash","executable":{"filename":"/c.fd","format":"raw"},"nvram-template":{"filename":"/v.fd","format":"raw"}},` +
		`"targets":[{"architecture":"x86_64","machines":["pc-q35-*"]}],"features":["acpi-s3"]}`
	for _, text := range []string{whole, strings.Replace(whole, "/c.fd", "c.fd", 1), strings.Replace(whole, "pc-q35-*", "pc-q35-[", 1), strings.ReplaceAll(whole, "raw", "nbd"), "null", "[]", "{", "",
		strings.Repeat("[", 10_001), whole + whole, `{"targets":null,"mapping":[]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "10-x.json"), text, 0o600))
		for _, arch := range []string{"amd64", "arm64"} {
			found, tried := described([]string{dir, filepath.Join(dir, "none")}, arch)
			require.LessOrEqual(t, len(found)+len(tried), 1)
			for _, u := range found {
				for _, path := range []string{u.Code, u.Vars} {
					require.True(t, filepath.IsAbs(path))
				}
				for _, format := range []string{u.CodeFormat, u.VarsFormat} {
					require.Contains(t, []string{"raw", "qcow2"}, format)
				}
			}
		}
	})
}

// A pidfile's content never decides anything, nor does it keep the file from being removed.
func FuzzPidfile(f *testing.F) {
	for _, text := range []string{"", "-1\n", "0", "1", "4294967296\n", "9223372036854775808", "text", "\x00\x00", fmt.Sprint(os.Getpid()) + "\n", "1\n2\n", "+1", " 1"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		pidfile := filepath.Join(t.TempDir(), "vm.pid")
		require.NoError(t, os.WriteFile(pidfile, text, 0o600))
		pid, err := Holder(pidfile)
		require.NoError(t, err)
		require.Zero(t, pid)
		gone, err := removePidfile(t, pidfile)
		require.NoError(t, err)
		require.True(t, gone)
	})
}

// The size of a base image is read from its header alone.
func FuzzQcow2Size(f *testing.F) {
	header := overlayHeader(Backing{"/base", "raw"}, 1<<20, 1)
	f.Add(header)
	f.Add(header[:31])
	f.Add([]byte("QFI\xfb"))
	f.Fuzz(func(t *testing.T, data []byte) {
		size, ok := qcow2Size(bytes.NewReader(data))
		require.True(t, ok || size == 0)
		path := filepath.Join(t.TempDir(), "base")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		if disk, err := virtualSize(path); err == nil {
			require.True(t, disk > 0 && disk%sectorSize == 0 && disk <= maxVirtualSize, "%d", disk)
			overlay, err := os.Create(filepath.Join(t.TempDir(), "overlay"))
			require.NoError(t, err)
			defer overlay.Close()
			if disk < 1<<40 {
				require.NoError(t, writeOverlay(overlay, Backing{path, "qcow2"}, disk))
			}
		}
	})
}
