package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/qemutest"
)

// firmwareTree is a directory that stands for a computer's root.
type firmwareTree struct{ root string }

func (f firmwareTree) in(path string) string { return filepath.Join(f.root, path) }

// put writes a sparse file of some size.
func (f firmwareTree) put(t *testing.T, path string, size int64) string {
	t.Helper()
	path = f.in(path)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, size))
	return path
}

// describe writes a firmware descriptor, with words of it replaced.
func (f firmwareTree) describe(t *testing.T, path, code, vars string, replace ...string) {
	t.Helper()
	text := strings.NewReplacer(replace...).Replace(fmt.Sprintf(`{
	"description": "a test's", "interface-types": ["uefi"], "tags": [], "features": ["acpi-s3"],
	"mapping": {"device": "flash", "executable": {"filename": %q, "format": "raw"}, "nvram-template": {"filename": %q, "format": "raw"}},
	"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}, {"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}]
}`, code, vars))
	path = f.in(path)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// roots has the three directories of descriptors in their order, and share as a directory that QEMU names.
func (f firmwareTree) roots() (FirmwareRoots, []string) {
	return FirmwareRoots{[]string{f.in("usr"), f.in("etc"), f.in("home")}, f.root}, []string{f.in("share")}
}

func (f firmwareTree) find(arch string) (UEFI, error) {
	roots, share := f.roots()
	return roots.findUEFI(share, arch)
}

func TestFindUEFIByDescriptors(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, f firmwareTree, good, other, vars string)
		want string // "good" or "other"; "" for none
		says string // of what was tried
	}{
		"one": {func(t *testing.T, f firmwareTree, good, _, vars string) { f.describe(t, "usr/60.json", good, vars) }, "good", ""},
		"QEMU's own directory": {func(t *testing.T, f firmwareTree, good, _, vars string) {
			f.describe(t, "share/firmware/60.json", good, vars)
		}, "good", ""},
		"the first by name, over all directories": {func(t *testing.T, f firmwareTree, good, other, vars string) {
			f.describe(t, "home/60.json", other, vars)
			f.describe(t, "usr/50.json", good, vars)
			f.describe(t, "share/firmware/55.json", other, vars)
		}, "good", ""},
		"a more specific directory hides": {func(t *testing.T, f firmwareTree, good, other, vars string) {
			f.describe(t, "usr/60.json", other, vars)
			f.describe(t, "etc/60.json", good, vars)
		}, "good", ""},
		"an empty file hides": {func(t *testing.T, f firmwareTree, good, other, vars string) {
			f.describe(t, "usr/50.json", other, vars)
			f.put(t, "home/50.json", 0)
			f.describe(t, "usr/60.json", good, vars)
		}, "good", ""},
		"no JSON": {func(t *testing.T, f firmwareTree, good, _, vars string) {
			f.put(t, "usr/40.json", 10)
			f.put(t, "usr/41.json", 1<<20)
			require.NoError(t, unix.Mkfifo(f.in("usr/42.json"), 0o600))
			require.NoError(t, os.Symlink("nowhere", f.in("usr/43.json")))
			f.describe(t, "usr/README", "/nowhere", vars)
			f.describe(t, "usr/60.json", good, vars)
		}, "good", ""},
		"files that are not there": {func(t *testing.T, f firmwareTree, good, _, vars string) {
			f.describe(t, "usr/40.json", good+".none", vars)
			f.describe(t, "usr/41.json", good, vars+".none")
			f.describe(t, "usr/60.json", good, vars)
		}, "good", ""},
		"secure boot comes last": {func(t *testing.T, f firmwareTree, good, other, vars string) {
			f.describe(t, "usr/40.json", other, vars, `"acpi-s3"`, `"secure-boot"`)
			f.describe(t, "usr/60.json", good, vars)
		}, "good", ""},
		"secure boot where there is no other": {func(t *testing.T, f firmwareTree, good, _, vars string) {
			f.describe(t, "usr/40.json", good, vars, `"acpi-s3"`, `"secure-boot"`)
		}, "good", ""},
		"enrolled keys": {func(t *testing.T, f firmwareTree, _, other, vars string) {
			f.describe(t, "usr/40.json", other, vars, `"acpi-s3"`, `"secure-boot", "enrolled-keys"`)
		}, "", "40.json: it has enrolled-keys"},
		"SMM": {func(t *testing.T, f firmwareTree, _, other, vars string) {
			f.describe(t, "usr/40.json", other, vars, `"acpi-s3"`, `"requires-smm"`)
		}, "", "40.json: it has requires-smm"},
		"a BIOS": {func(t *testing.T, f firmwareTree, _, other, vars string) {
			f.describe(t, "usr/40.json", other, vars, `"uefi"`, `"bios"`)
		}, "", "40.json: no UEFI"},
		"no variables": {func(t *testing.T, f firmwareTree, _, other, vars string) {
			f.describe(t, "usr/40.json", other, vars, `"device": "flash"`, `"device": "flash", "mode": "stateless"`)
		}, "", "40.json: no flash memory of two parts"},
		"memory": {func(t *testing.T, f firmwareTree, _, other, vars string) {
			f.describe(t, "usr/40.json", other, vars, `"flash"`, `"memory"`)
		}, "", "40.json: no flash memory of two parts"},
		"another format": {func(t *testing.T, f firmwareTree, _, other, vars string) {
			f.describe(t, "usr/40.json", other, vars, `"raw"`, `"vmdk"`)
		}, "", `40.json: format "vmdk"`},
		"a relative path": {func(t *testing.T, f firmwareTree, _, _, vars string) {
			f.describe(t, "usr/40.json", "code.fd", vars)
		}, "", `40.json: "code.fd" is no absolute path`},
		"other machines": {func(t *testing.T, f firmwareTree, _, other, vars string) {
			f.describe(t, "usr/40.json", other, vars, `"virt-*"`, `"sbsa-ref"`, "q35", "x35")
			f.describe(t, "usr/41.json", other, vars, "aarch64", "riscv64", "x86_64", "i386")
		}, "", ""},
		"any machine": {func(t *testing.T, f firmwareTree, good, _, vars string) {
			f.describe(t, "usr/40.json", good, vars, "virt-*", "*", "pc-q35-*", "pc-*")
		}, "good", ""},
	} {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(name+" "+arch, func(t *testing.T) {
				f := firmwareTree{t.TempDir()}
				size := map[string]int64{"amd64": 1 << 20, "arm64": virtFlash}[arch]
				paths := map[string]string{"good": f.put(t, "fw/good", size), "other": f.put(t, "fw/other", size)}
				vars := f.put(t, "fw/vars", size)
				require.NoError(t, os.Mkdir(f.in("usr"), 0o700))
				c.make(t, f, paths["good"], paths["other"], vars)
				found, err := f.find(arch)
				if c.want != "" {
					require.NoError(t, err)
					require.Equal(t, UEFI{Code: paths[c.want], Vars: vars, CodeFormat: "raw", VarsFormat: "raw"}, found)
					return
				}
				var missing *MissingFirmwareError
				require.ErrorAs(t, err, &missing)
				require.Equal(t, arch, missing.Arch)
				require.Contains(t, strings.Join(missing.Tried, "\n"), c.says)
			})
		}
	}
}

// Each place that is known is one that firmware is taken from; what does not fit the machine's flash is not.
func TestFindUEFIInKnownPlaces(t *testing.T) {
	for arch, size := range map[string]int64{"amd64": 2 << 20, "arm64": virtFlash} {
		all := append([]pair{}, places[arch]...)
		for _, dir := range append([]string{"/share"}, shares...) {
			for _, p := range inShare[arch] {
				all = append(all, pair{filepath.Join(dir, p.code), filepath.Join(dir, p.vars)})
			}
		}
		for _, p := range all {
			t.Run(p.code, func(t *testing.T) {
				f := firmwareTree{t.TempDir()}
				_, err := f.find(arch)
				var missing *MissingFirmwareError
				require.ErrorAs(t, err, &missing)
				require.Contains(t, strings.Join(missing.Tried, "\n"), f.in(p.code))
				require.ErrorIs(t, err, os.ErrNotExist)
				require.Contains(t, missing.Hint(), "install")

				write := func(path string) {
					f.put(t, path, size)
					if filepath.Ext(path) == ".qcow2" {
						qemutest.WriteImage(t, f.in(path), size)
					}
				}
				write(p.code)
				_, err = f.find(arch)
				require.ErrorAs(t, err, &missing, "without its variables")
				require.Contains(t, strings.Join(missing.Tried, "\n"), f.in(p.vars))

				write(p.vars)
				found, err := f.find(arch)
				require.NoError(t, err)
				format := formatByName(p.code)
				require.Equal(t, UEFI{f.in(p.code), f.in(p.vars), format, format}, found)

				f.put(t, p.code, map[string]int64{"amd64": 7 << 20, "arm64": 2 << 20}[arch])
				_, err = f.find(arch)
				require.ErrorAs(t, err, &missing, "of the wrong size, or no qcow2")
			})
		}
	}
}

func TestFlashOfOddSizes(t *testing.T) {
	f := firmwareTree{t.TempDir()}
	whole := f.put(t, "whole", 1<<20)
	for says, u := range map[string]UEFI{
		"0 bytes, and flash is a multiple of 4096":    {Code: f.put(t, "empty", 0), Vars: whole},
		"1000 bytes, and flash is a multiple of 4096": {Code: whole, Vars: f.put(t, "odd", 1000)},
		"no qcow2":           {Code: whole, Vars: whole, VarsFormat: "qcow2"},
		"no regular file":    {Code: f.root, Vars: whole},
		"8388608":            {Code: f.put(t, "large", 8<<20), Vars: whole},
		"none: no such file": {Code: f.in("none"), Vars: whole},
	} {
		require.ErrorContains(t, u.check("amd64"), says)
	}
	require.NoError(t, UEFI{Code: whole, Vars: whole}.check("amd64"))
	require.ErrorContains(t, UEFI{Code: whole, Vars: whole}.check("arm64"), "the machine's flash has 67108864")
}

func TestSystemFirmware(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", "/config")
	require.Equal(t, []string{"/usr/share/qemu/firmware", "/etc/qemu/firmware", "/config/qemu/firmware"}, SystemFirmware().Descriptors)
	t.Setenv("HOME", "/home/u")
	for _, unusable := range []string{"", "relative"} {
		t.Setenv("XDG_CONFIG_HOME", unusable)
		require.Equal(t, "/home/u/.config/qemu/firmware", SystemFirmware().Descriptors[2])
	}
	require.NotEqual(t, UEFIPackage("amd64"), UEFIPackage("arm64"))
}

func TestFindUEFIAsksQEMU(t *testing.T) {
	f := firmwareTree{t.TempDir()}
	roots, _ := f.roots()
	code, vars := f.put(t, "share/edk2-x86_64-code.fd", 1<<20), f.put(t, "share/edk2-i386-vars.fd", 1<<20)
	found, err := roots.FindUEFI(t.Context(), program(t, "echo relative; echo /no/such/directory; echo "+f.in("bin/../share")), "amd64")
	require.NoError(t, err)
	require.Equal(t, UEFI{code, vars, "raw", "raw"}, found)
	_, err = roots.FindUEFI(t.Context(), program(t, "exit 1"), "amd64")
	require.ErrorAs(t, err, new(*ToolError))
	_, err = roots.FindUEFI(t.Context(), program(t, ""), "arm64")
	require.ErrorAs(t, err, new(*MissingFirmwareError))
}

func TestMakeVars(t *testing.T) {
	f := firmwareTree{t.TempDir()}
	template := f.put(t, "template", virtFlash)
	content := []byte(strings.Repeat("variables ", 100))
	file, err := os.OpenFile(template, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteAt(content, 0)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.NoError(t, os.Chmod(template, 0o444))
	link := f.in("link")
	require.NoError(t, os.Symlink(template, link))

	own := f.in("own")
	require.NoError(t, os.Symlink(template, own), "a link in its place is replaced, and not followed")
	for range 2 {
		require.NoError(t, MakeVars(link, own))
		st, err := os.Lstat(own)
		require.NoError(t, err)
		require.EqualValues(t, 0o600, st.Mode(), "a file with this mode, no link")
		require.EqualValues(t, virtFlash, st.Size())
		require.Less(t, usage(t, own), int64(1<<20))
		got, err := os.ReadFile(own)
		require.NoError(t, err)
		require.Equal(t, content, got[:len(content)])
		require.NoError(t, os.WriteFile(own, []byte("of a guest"), 0o600))
	}
	got, err := os.ReadFile(template)
	require.NoError(t, err)
	require.Equal(t, content, got[:len(content)])

	require.ErrorIs(t, MakeVars(f.in("none"), own), os.ErrNotExist)
	require.ErrorIs(t, MakeVars(template, f.in("none/own")), os.ErrNotExist)
	require.NoError(t, unix.Mkfifo(f.in("pipe"), 0o600))
	require.ErrorIs(t, MakeVars(f.in("pipe"), own), errNoFile)
	require.ErrorContains(t, MakeVars(template, f.root), "copy "+template)
	entries, err := os.ReadDir(f.root)
	require.NoError(t, err)
	require.Len(t, entries, 4, "link, own, pipe, template: nothing is left behind")
}
