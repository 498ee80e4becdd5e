package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/unpack"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

// rawDisk is whole sectors with a boot signature.
func rawDisk(change func([]byte)) []byte {
	b := make([]byte, 64<<10)
	b[510], b[511] = 0x55, 0xaa
	if change != nil {
		change(b)
	}
	return b
}

// Fault D6, failure bank 34: by its header alone, in a file and fetched.
func TestHostileImagesSoak(t *testing.T) {
	o := newOrigin(t)
	all := qemutest.HostileImages("/etc/shadow")
	for _, name := range []unpack.Form{unpack.Gzip, unpack.XZ, unpack.Zstd} {
		all = append(all, qemutest.Hostile{Name: "packed disk, " + string(name), Data: pack(t, name, rawDisk(nil)), Says: "compressed file"})
	}
	refused := 0
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.img")
			require.NoError(t, os.WriteFile(path, c.Data, 0o600))
			_, err := Inspect(path)
			var fe *FormatError
			require.ErrorAs(t, err, &fe)
			require.ErrorContains(t, err, c.Says)
			require.ErrorContains(t, err, path)
			require.NotEmpty(t, fe.Hint())
			refused++

			if len(c.Data) == 0 || unpack.Detect(c.Data) != unpack.None {
				return
			}
			home := newHome(t)
			s := o.put("disk.img", c.Data)
			_, err = Ensure(t.Context(), home, s, Report{})
			_, ok := Find(home, s)
			require.False(t, ok)
			require.Equal(t, []string{lockName}, names(t, filepath.Join(home, "images", "sha512-"+s.Digest.Hex[:32])))
			require.ErrorAs(t, err, &fe)
			require.ErrorContains(t, err, c.Says)
			require.Equal(t, s.URL, fe.Path)
		})
	}
	soak.AtLeast(t, "D6", "hostile images refused by their header", 30, float64(refused))
}

func TestInspectTakesRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(path, rawDisk(nil), 0o600))
	info, err := Inspect(path)
	require.NoError(t, err)
	require.Equal(t, Info{Format: FormatRaw, VirtualSize: 64 << 10}, info)
	require.Contains(t, notRaw(rawDisk(nil), nil, maxVirtualSize+sector).Reason, "out of range")
}

// What QEMU itself writes in other formats is known for what it is.
func TestInspectKnowsOtherFormats(t *testing.T) {
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	require.NoError(t, os.WriteFile(raw, rawDisk(nil), 0o600))
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"qcow2": {[]string{"-O", "qcow2"}, ""}, "qcow2 compressed": {[]string{"-c", "-O", "qcow2"}, ""}, "raw": {[]string{"-O", "raw"}, ""},
		"vmdk": {[]string{"-O", "vmdk"}, "VMDK"}, "vmdk flat": {[]string{"-O", "vmdk", "-o", "subformat=monolithicFlat"}, "VMDK"}, "vdi": {[]string{"-O", "vdi"}, "VDI"},
		"vhdx": {[]string{"-O", "vhdx"}, "VHDX"}, "vpc": {[]string{"-O", "vpc"}, "VHD"}, "vpc fixed": {[]string{"-O", "vpc", "-o", "subformat=fixed"}, "VHD"},
		"qed": {[]string{"-O", "qed"}, "QED"}, "parallels": {[]string{"-O", "parallels"}, "Parallels"}, "qcow": {[]string{"-O", "qcow"}, "version 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			if out, err := exec.Command(img, append(append([]string{"convert", "-f", "raw"}, c.args...), raw, path)...).CombinedOutput(); err != nil {
				t.Skip(string(out))
			}
			info, err := Inspect(path)
			if c.says == "" {
				require.NoError(t, err)
				require.EqualValues(t, 64<<10, info.VirtualSize)
				require.Equal(t, c.args[len(c.args)-1], info.Format)
				return
			}
			require.ErrorAs(t, err, new(*FormatError))
			require.ErrorContains(t, err, c.says)
		})
	}
}
