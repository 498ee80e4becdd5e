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

// A guest of another architecture is emulated, whatever this computer has.
func TestChooseAcceleratorFor(t *testing.T) {
	const usable = "/dev/null"
	for _, c := range []struct {
		want, goos, host, guest string
		accel, says             string
	}{
		{"", "linux", "amd64", "amd64", "kvm", ""},
		{"", "linux", "arm64", "arm64", "kvm", ""},
		{"", "linux", "amd64", "arm64", "tcg", "an arm64 guest on an amd64 computer is emulated"},
		{"", "linux", "arm64", "amd64", "tcg", "an amd64 guest on an arm64 computer is emulated"},
		{"", "darwin", "arm64", "amd64", "tcg", "is emulated"},
		{"tcg", "linux", "amd64", "arm64", "tcg", "asked for"},
		{"kvm", "linux", "amd64", "arm64", "", "accelerator kvm: an arm64 guest on an amd64 computer is emulated"},
		{"hvf", "darwin", "amd64", "arm64", "", "accelerator hvf: an arm64 guest"},
		{"hvf", "linux", "amd64", "arm64", "", "not on linux"},
		{"xen", "linux", "amd64", "arm64", "", "unknown; known: kvm, hvf, tcg"},
	} {
		t.Run(c.want+" "+c.goos+" "+c.host+" "+c.guest, func(t *testing.T) {
			got, err := ChooseAcceleratorFor(c.want, c.goos, c.host, c.guest, usable)
			require.Equal(t, c.accel, got.Name)
			if c.accel != "" {
				require.NoError(t, err)
				require.Contains(t, got.Reason, c.says)
				return
			}
			var refused *AcceleratorError
			require.ErrorAs(t, err, &refused)
			require.ErrorContains(t, err, c.says)
			require.Contains(t, refused.Hint(), "unset CASTRA_ACCEL")
		})
	}
	require.Equal(t, "max,pauth-impdef=on", Accelerator{Name: "tcg"}.CPUFor("arm64"))
	require.Equal(t, "host", Accelerator{Name: "hvf"}.CPUFor("arm64"))
	require.Contains(t, (&AcceleratorError{"kvm", &ForeignError{"arm64", "amd64"}}).Hint(), "an image for amd64")
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
