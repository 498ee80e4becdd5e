package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/soak"
)

// flipAt changes one byte of a file by way of change, which gets it open to read and write.
func flipAt(t *testing.T, path string, change func(f *os.File, b []byte)) {
	t.Helper()
	require.NoError(t, os.Chmod(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, 5000)
	require.NoError(t, err)
	b[0] ^= 1
	change(f, b)
}

func pwrite(f *os.File, b []byte) { _, _ = f.WriteAt(b, 5000) }

// behind are ways to change a disk that is known to be whole. Its mode, size and mtime are put back afterwards.
var behind = map[string]func(t *testing.T, path, placed string){
	"write": func(t *testing.T, path, _ string) { flipAt(t, path, pwrite) },
	"mmap": func(t *testing.T, path, _ string) {
		flipAt(t, path, func(f *os.File, b []byte) {
			m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			require.NoError(t, err)
			m[5000] = b[0]
			require.NoError(t, unix.Msync(m, unix.MS_SYNC))
			require.NoError(t, unix.Munmap(m))
		})
	},
	"punched hole": func(t *testing.T, path, _ string) {
		flipAt(t, path, func(f *os.File, _ []byte) {
			require.NoError(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096))
		})
	},
	"cut and written again": func(t *testing.T, path, _ string) {
		flipAt(t, path, func(f *os.File, _ []byte) {
			st, err := f.Stat()
			require.NoError(t, err)
			require.NoError(t, f.Truncate(4096))
			require.NoError(t, f.Truncate(st.Size()))
		})
	},
	"another file in its place": func(t *testing.T, path, _ string) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		data[5000] ^= 1
		require.NoError(t, os.WriteFile(path+".new", data, 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	},
	"by another name": func(t *testing.T, path, _ string) {
		require.NoError(t, os.Link(path, path+".link"))
		flipAt(t, path+".link", pwrite)
		require.NoError(t, os.Remove(path+".link"))
	},
	"where it was placed": func(t *testing.T, _, placed string) { flipAt(t, placed, pwrite) },
	"by an open descriptor": func(t *testing.T, path, _ string) {
		flipAt(t, path, func(f *os.File, b []byte) {
			again, err := os.OpenFile("/proc/self/fd/"+itoa(f.Fd()), os.O_RDWR, 0)
			require.NoError(t, err)
			defer again.Close()
			pwrite(again, b)
		})
	},
	"by copy_file_range": func(t *testing.T, path, _ string) {
		flipAt(t, path, func(f *os.File, b []byte) {
			from := filepath.Join(t.TempDir(), "from")
			require.NoError(t, os.WriteFile(from, b, 0o600))
			in, err := os.Open(from)
			require.NoError(t, err)
			defer in.Close()
			off := int64(5000)
			if _, err := unix.CopyFileRange(int(in.Fd()), nil, int(f.Fd()), &off, 1, 0); err != nil {
				pwrite(f, b) // not there on this file system
			}
		})
	},
}

func itoa(n uintptr) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// Fault D2: a disk that was known to be whole and is changed by its owner, who puts size, mode and mtime back, is not handed out.
// Nobody but root can set a ctime.
func TestChangedBehindTheStoreSoak(t *testing.T) {
	o, body := newOrigin(t), diskBytes(1, 100_000)
	s := o.put("disk.img", body)
	type home struct{ home, disk, placed string }
	homes := map[string]home{}
	for name := range behind {
		h := home{home: newHome(t), placed: filepath.Join(t.TempDir(), "a.qcow2")}
		d, err := Ensure(t.Context(), h.home, s, Report{})
		require.NoError(t, err)
		require.NoError(t, Place(t.Context(), d, h.placed))
		h.disk = d.Path
		homes[name] = h
	}
	settle()
	found := 0
	for name, change := range behind {
		h := homes[name]
		_, err := Ensure(t.Context(), h.home, s, Report{})
		require.NoError(t, err)
		d, err := Ensure(t.Context(), h.home, s, Report{})
		require.NoError(t, err)
		require.Zero(t, d.Hashed, "%s: it is known to be whole", name)
		before, err := os.Stat(h.disk)
		require.NoError(t, err)
		change(t, h.disk, h.placed)
		require.NoError(t, os.Chmod(h.disk, before.Mode()))
		require.NoError(t, os.Chtimes(h.disk, time.Time{}, before.ModTime()))
		after, err := os.Stat(h.disk)
		require.NoError(t, err)
		require.Equal(t, before.ModTime(), after.ModTime())
		require.Equal(t, before.Size(), after.Size())
		d, err = Ensure(t.Context(), h.home, s, Report{})
		require.NoError(t, err)
		require.True(t, d.Downloaded, name)
		requireDisk(t, body, d)
		found++
	}
	soak.AtLeast(t, "D2", "ways to change a disk that is known to be whole, each found", 9, float64(found))
}

// Fault D2: another user who can reach the store, since its owner has opened it to be read, cannot change a disk there.
func TestAnotherUserCannotChangeTheStore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: no other user can be played")
	}
	o, body := newOrigin(t), diskBytes(1, 100_000)
	s := o.put("disk.img", body)
	home := newHome(t)
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	slot := filepath.Dir(d.Path)
	temp := filepath.Dir(home)
	for _, dir := range []string{filepath.Dir(temp), temp, home, filepath.Dir(slot), slot} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	require.NoError(t, os.Chmod(d.Path, 0o444))
	settle()
	_, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.NoError(t, os.Chmod(filepath.Join(slot, factsName), 0o644))
	nobody := func(script string) error {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=/usr/bin:/bin", "D=" + d.Path, "S=" + slot}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd.Run()
	}
	if nobody(`test -e "$D"`) != nil {
		t.Skip("another user cannot reach the directory of tests")
	}
	for _, script := range []string{
		`printf x >> "$D"`, `: > "$D"`, `printf x | dd of="$D" bs=1 seek=5000 conv=notrunc`, `truncate -s 5 "$D"`, `rm -f "$D"`, `mv "$D" "$D.x"`, `mv -f /etc/hostname "$D"`,
		`chmod 666 "$D"`, `touch "$D"`, `touch -d 2001-01-01 "$D"`, `: > "$S/facts.json"`, `rm -f "$S/facts.json"`, `printf x > "$S/new"`, `mv "$S" "$S.x"`, `rm -rf "$S"`, `fallocate -p -l 4096 "$D"`,
	} {
		require.Error(t, nobody(script), script)
	}
	got, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.False(t, got.Downloaded)
	data, err := os.ReadFile(d.Path)
	require.NoError(t, err)
	require.Equal(t, body, data)
}
