package qemu

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/host"
)

// sparseBlock is that of host.CopySparse.
const sparseBlock = 64 << 10

// A copy has the same bytes, and takes no room for what is zero.
func TestCopySparse(t *testing.T) {
	const size = 8 << 20
	content := make([]byte, size)
	copy(content[1<<20:], bytes.Repeat([]byte("x"), 3*sparseBlock+5))
	content[size-1] = 1
	for name, make := range map[string]func(path string) error{
		"with zeros": func(path string) error { return os.WriteFile(path, content, 0o600) },
		"with holes": func(path string) error {
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			defer f.Close()
			for _, r := range [][2]int{{1 << 20, 1<<20 + 4*sparseBlock}, {size - 1, size}} {
				if _, err := f.WriteAt(content[r[0]:r[1]], int64(r[0])); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
			require.NoError(t, make(from))
			require.NoError(t, copySparse(t.Context(), from, to))
			got, err := os.ReadFile(to)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, got))
			st, err := os.Stat(to)
			require.NoError(t, err)
			require.LessOrEqual(t, host.DiskUsage(st), int64(6*sparseBlock))
			require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
			require.ErrorIs(t, copySparse(t.Context(), from, to), os.ErrExist)
		})
	}
}

func TestCopyIsCancelled(t *testing.T) {
	from := filepath.Join(t.TempDir(), "from")
	require.NoError(t, os.WriteFile(from, bytes.Repeat([]byte("x"), 1<<20), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, copySparse(ctx, from, filepath.Join(t.TempDir(), "to")), context.Canceled)
}

func TestRoomIsLookedForBeforeTheGuestIsStopped(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	require.NoError(t, checkRoom(dir, 0, file, ""))
	err := checkRoom(dir, 1<<62, file, "")
	var room *RoomError
	require.ErrorAs(t, err, &room)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Greater(t, room.Need, uint64(1<<62))
	require.Contains(t, room.Hint(), "prune -templates")
}

// What the user has set for glibc is left.
func TestEnvironment(t *testing.T) {
	require.Equal(t, []string{"A=1", mallocTunables}, environment([]string{"A=1"}, "linux"))
	own := []string{"GLIBC_TUNABLES=glibc.malloc.check=1"}
	require.Equal(t, own, environment(own, "linux"))
	require.Equal(t, []string{"A=1"}, environment([]string{"A=1"}, "darwin"))
}

// A shape has nothing of this computer in it, and all that the guest can tell.
func TestShape(t *testing.T) {
	spec := Spec{
		Binary: "/usr/bin/qemu", Dir: "/host/root", Name: "web-0", UUID: "u-u-i-d", Machine: "q35", Accelerator: Accelerator{Name: "tcg"}, CPUs: 2, MemoryMiB: 64,
		Overlay: "/host/overlay", Seed: "/host/seed", Pidfile: "/host/pid", Monitor: "web-0.qmp", SerialLog: "/host/log", Kernel: "/host/kernel", Initrd: "/host/initrd", Append: "quiet",
		Forwards: []Forward{{"127.0.0.1", 4711, 22, "tcp"}}, RAM: RAM{File: "/host/ram"}, State: "/host/state",
		UEFI: UEFI{Code: "/host/code", Vars: "/host/vars"},
	}
	shape := spec.Shape()
	for _, word := range shape {
		for _, ours := range []string{"/host", "web-0", "4711", "u-u-i-d", "incoming", "ram0"} {
			require.NotContains(t, word, ours)
		}
	}
	for name, change := range map[string]func(*Spec){
		"machine": func(s *Spec) { s.Machine = "pc" }, "cpu": func(s *Spec) { s.CPU = "qemu64" }, "cpus": func(s *Spec) { s.CPUs = 1 },
		"memory": func(s *Spec) { s.MemoryMiB = 65 }, "seed": func(s *Spec) { s.Seed = "" }, "restrict": func(s *Spec) { s.Restrict = true },
		"kernel": func(s *Spec) { s.Kernel = "" }, "append": func(s *Spec) { s.Append = "" }, "generation ID": func(s *Spec) { s.GenerationID = true },
		"accelerator": func(s *Spec) { s.Accelerator.Name = "kvm" }, "UEFI": func(s *Spec) { s.UEFI = UEFI{} },
		"architecture": func(s *Spec) { s.Arch = "arm64" },
	} {
		other := spec
		change(&other)
		require.NotEqual(t, shape, other.Shape(), name)
	}
	again := spec
	again.Arch, again.UEFI = "amd64", UEFI{Code: "/elsewhere", Vars: "/elsewhere"}
	again.Forwards, again.Overlay, again.RAM, again.Dir = []Forward{{"0.0.0.0", 80, 22, "tcp"}, {"127.0.0.1", 1, 80, "tcp"}}, "/elsewhere", RAM{Shared: true}, "/elsewhere"
	require.Equal(t, shape, again.Shape())
}
