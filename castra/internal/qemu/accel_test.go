package qemu

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChooseAccelerator(t *testing.T) {
	dir := t.TempDir()
	absent := filepath.Join(dir, "absent")
	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, nil, 0o600))
	const usable = "/dev/null" // a device that opens for reading and writing

	for _, c := range []struct {
		name, want, goos, device string
		accel                    string
		fails                    string
	}{
		{name: "kvm opens", goos: "linux", device: usable, accel: "kvm"},
		{name: "kvm asked for and opens", want: "kvm", goos: "linux", device: usable, accel: "kvm"},
		{name: "kvm absent", goos: "linux", device: absent, accel: "tcg"},
		{name: "a plain file is no device", goos: "linux", device: plain, accel: "tcg"},
		{name: "kvm asked for and absent", want: "kvm", goos: "linux", device: absent, fails: "no such file"},
		{name: "kvm asked for and a plain file", want: "kvm", goos: "linux", device: plain, fails: "not a device"},
		{name: "tcg asked for beside kvm", want: "tcg", goos: "linux", device: usable, accel: "tcg"},
		{name: "hvf on linux", want: "hvf", goos: "linux", device: usable, fails: "not on linux"},
		{name: "kvm on macOS", want: "kvm", goos: "darwin", device: usable, fails: "not on darwin"},
		{name: "misspelt", want: "KVM", goos: "linux", device: usable, fails: "known: kvm, hvf, tcg"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ChooseAccelerator(c.want, c.goos, c.device)
			if c.fails != "" {
				var ae *AcceleratorError
				require.ErrorAs(t, err, &ae)
				require.ErrorContains(t, err, c.fails)
				require.NotEmpty(t, ae.Hint())
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.accel, got.Name)
			require.Equal(t, c.accel == "tcg", got.Reason != "", "a fallback says why")
		})
	}
}

// Failure bank 40 and 41: a device that may not be opened is a fallback with a
// CPU model that exists there, and its fix is the group.
func TestDeniedDevice(t *testing.T) {
	denied := &AcceleratorError{"kvm", &fs.PathError{Op: "open", Path: KVMDevice, Err: fs.ErrPermission}}
	require.Contains(t, denied.Hint(), "usermod -aG kvm")
	require.Contains(t, denied.Hint(), "unset CASTRA_ACCEL")
	absent := &AcceleratorError{"kvm", &fs.PathError{Op: "stat", Path: KVMDevice, Err: fs.ErrNotExist}}
	require.Contains(t, absent.Enable(), "modprobe")
	require.Empty(t, (&AcceleratorError{"hvf", errors.New("not on linux")}).Enable())
	require.Equal(t, "max", Accelerator{Name: "tcg"}.CPU())
	require.Equal(t, "host", Accelerator{Name: "kvm"}.CPU())
	require.True(t, errors.Is(denied, fs.ErrPermission))
}
