package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The hint is the command of this host's own package manager, which may be
// pasted as it is.
func TestMissingToolsAreTold(t *testing.T) {
	sudo := "sudo "
	if os.Geteuid() == 0 {
		sudo = ""
	}
	for manager, want := range map[string]string{
		"apt-get": "install it: " + sudo + "apt-get install qemu-utils",
		"dnf":     "install it: " + sudo + "dnf install qemu-img",
		"pacman":  "install it: " + sudo + "pacman -S qemu-img",
		"brew":    "install it: brew install qemu",
		"none":    "Debian and Ubuntu: " + sudo + "apt-get install qemu-utils; Fedora: ",
	} {
		t.Run(manager, func(t *testing.T) {
			path := t.TempDir()
			t.Setenv("PATH", path)
			require.NoError(t, os.WriteFile(filepath.Join(path, manager), []byte("#!/bin/sh\n"), 0o700))
			_, err := FindImg()
			var m *MissingToolError
			require.ErrorAs(t, err, &m)
			require.Equal(t, "qemu-img", m.Tool)
			require.Contains(t, m.Hint(), want)
			_, err = FindSystem("amd64")
			require.ErrorAs(t, err, &m)
			require.Equal(t, "qemu-system-x86_64", m.Tool)
		})
	}
}

func TestUnknownArchitecture(t *testing.T) {
	_, err := FindSystem("riscv64")
	require.ErrorContains(t, err, "riscv64")
	require.Empty(t, Machine("riscv64"))
	require.Equal(t, "q35,sata=off,smbus=off", Machine("amd64"))
}
