package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
)

// program writes a shell script and gives its path.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700))
	return path
}

func TestVersion(t *testing.T) {
	for _, c := range []struct{ says, version, fails string }{
		{"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22", ""},
		{"QEMU emulator version 6.2.0", "6.2.0", ""},
		{"QEMU emulator version 10.0", "10.0", ""},
		{"qemu-img version 9.1.93 (v9.2.0-rc3)", "9.1.93", ""},
		{"QEMU emulator version 6.1.1", "6.1.1", "version 6.1.1, and Castra needs 6.2"},
		{"QEMU emulator version 2.12.0", "2.12.0", "needs 6.2"},
		{"busybox", "", "tells no version"},
		{"", "", "tells no version"},
	} {
		t.Run(c.says, func(t *testing.T) {
			got, err := Version(t.Context(), program(t, fmt.Sprintf("echo '%s'", c.says)))
			require.Equal(t, c.version, got)
			if c.fails == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.fails)
		})
	}
}

// Failure bank: no program may hold a command up, or fill its memory.
func TestVersionOfTroublesomePrograms(t *testing.T) {
	for name, c := range map[string]struct{ script, says string }{
		"fails":                 {"echo broken >&2; exit 3", "exit status 3: broken"},
		"killed":                {"kill -9 $$", "signal: killed"},
		"hangs":                 {"exec sleep 60", "no time left"},
		"leaves a child behind": {"sleep 60 & exec sleep 60", "no time left"},
		"floods":                {"exec yes", "no time left"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, fmt.Errorf("no time left"))
			defer cancel()
			if c.says != "no time left" {
				ctx = t.Context()
			}
			_, err := Version(ctx, program(t, c.script))
			require.ErrorAs(t, err, new(*ToolError))
			require.ErrorContains(t, err, c.says)
			require.Less(t, len(err.Error()), 8<<10)
		})
	}
	_, err := Version(t.Context(), "/no/such/qemu")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFindFirmware(t *testing.T) {
	dir := t.TempDir()
	bios := filepath.Join(dir, biosFile)
	qemu := program(t, "echo /no/such/directory; echo "+dir+"/../"+filepath.Base(dir))
	found, err := FindFirmware(t.Context(), qemu)
	require.NoError(t, err)
	require.Empty(t, found.BIOS)

	f := firmwareTree{dir}
	f.describe(t, "firmware/00.json", f.put(t, "code", 1<<20), f.put(t, "vars", 1<<20))
	require.NoError(t, os.WriteFile(bios, nil, 0o600))
	found, err = FindFirmware(t.Context(), qemu)
	require.NoError(t, err)
	require.Equal(t, Firmware{bios, f.in("code")}, found)

	arm := filepath.Join(dir, "qemu-system-aarch64")
	require.NoError(t, os.Symlink(qemu, arm))
	f.describe(t, "firmware/00.json", f.put(t, "code", virtFlash), f.put(t, "vars", virtFlash))
	found, err = FindFirmware(t.Context(), arm)
	require.NoError(t, err)
	require.Equal(t, Firmware{"", f.in("code")}, found)

	_, err = FindFirmware(t.Context(), program(t, "exit 1"))
	require.ErrorAs(t, err, new(*ToolError))
}

// The fake and the real QEMU have what this package asks for.
func TestProbesOfQEMU(t *testing.T) {
	for name, qemu := range map[string]func() string{
		"fake": func() string { return filepath.Join(qemutest.Install(t), "qemu-system-x86_64") },
		"real": func() string { return realQEMU(t) },
	} {
		t.Run(name, func(t *testing.T) {
			system := qemu()
			version, err := Version(t.Context(), system)
			require.NoError(t, err)
			require.NotEmpty(t, version)
			firmware, err := FindFirmware(t.Context(), system)
			require.NoError(t, err)
			require.NotEmpty(t, firmware.BIOS)
		})
	}
}
