package qemu

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// FirmwareRoots are where firmware is looked for.
type FirmwareRoots struct {
	// Descriptors are directories of firmware descriptors, the most specific last.
	Descriptors []string
	// Root stands before the known places of systems: "/".
	Root string
}

// SystemFirmware is where this computer has firmware.
func SystemFirmware() FirmwareRoots {
	dirs := []string{"/usr/share/qemu/firmware", "/etc/qemu/firmware"}
	config := os.Getenv("XDG_CONFIG_HOME")
	if home, err := os.UserHomeDir(); err == nil && !filepath.IsAbs(config) {
		config = filepath.Join(home, ".config")
	}
	if filepath.IsAbs(config) {
		dirs = append(dirs, filepath.Join(config, "qemu", "firmware"))
	}
	return FirmwareRoots{dirs, "/"}
}

// pair is the code and the template of its variables.
type pair struct{ code, vars string }

// inShare are the names in QEMU's own directories: its own, and openSUSE's.
var inShare = map[string][]pair{
	"amd64": {
		{"edk2-x86_64-code.fd", "edk2-i386-vars.fd"},
		{"ovmf-x86_64-4m-code.bin", "ovmf-x86_64-4m-vars.bin"},
		{"ovmf-x86_64-code.bin", "ovmf-x86_64-vars.bin"},
	},
	"arm64": {
		{"edk2-aarch64-code.fd", "edk2-arm-vars.fd"},
		{"aavmf-aarch64-code.bin", "aavmf-aarch64-vars.bin"},
	},
}

// shares are QEMU's directories, also of one that is not asked: of the systems, and of Homebrew on arm64 and amd64.
var shares = []string{"/usr/share/qemu", "/opt/homebrew/share/qemu", "/usr/local/share/qemu"}

// places are those of Debian and Ubuntu, Fedora, and Arch, each system's newer ones first.
var places = map[string][]pair{
	"amd64": {
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2", "/usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
		{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
		{"/usr/share/edk2/x64/OVMF_CODE.fd", "/usr/share/edk2/x64/OVMF_VARS.fd"},
		{"/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"},
	},
	"arm64": {
		{"/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
		{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
		{"/usr/share/edk2/aarch64/QEMU_EFI-silent-pflash.qcow2", "/usr/share/edk2/aarch64/vars-template-pflash.qcow2"},
		{"/usr/share/edk2/aarch64/QEMU_EFI-silent-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
		{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
		{"/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/edk2/aarch64/QEMU_VARS.fd"},
		{"/usr/share/edk2-armvirt/aarch64/QEMU_CODE.fd", "/usr/share/edk2-armvirt/aarch64/QEMU_VARS.fd"},
	},
}

// FindUEFI is FindUEFI in these directories, and in those that QEMU names.
func (r FirmwareRoots) FindUEFI(ctx context.Context, system, arch string) (UEFI, error) {
	dirs, err := shareDirs(ctx, system)
	if err != nil {
		return UEFI{}, err
	}
	return r.findUEFI(dirs, arch)
}

// findUEFI has the directories that QEMU names, whose descriptors are the least specific.
func (r FirmwareRoots) findUEFI(dirs []string, arch string) (UEFI, error) {
	var own []string
	for _, dir := range dirs {
		own = append(own, filepath.Join(dir, "firmware"))
	}
	candidates, tried := described(append(own, r.Descriptors...), arch)
	for _, dir := range dirs {
		candidates = append(candidates, pairsIn("", dir, inShare[arch])...)
	}
	candidates = append(candidates, pairsIn(r.Root, "", places[arch])...)
	for _, dir := range shares {
		candidates = append(candidates, pairsIn(r.Root, dir, inShare[arch])...)
	}
	for _, found := range candidates {
		err := found.check(arch)
		if err == nil {
			return found, nil
		}
		if note := strings.TrimPrefix(err.Error(), "open "); !slices.Contains(tried, note) {
			tried = append(tried, note)
		}
	}
	return UEFI{}, &MissingFirmwareError{arch, tried, UEFIPackage(arch)}
}

func pairsIn(root, dir string, pairs []pair) []UEFI {
	var all []UEFI
	for _, p := range pairs {
		u := UEFI{Code: filepath.Join(root, dir, p.code), Vars: filepath.Join(root, dir, p.vars)}
		u.CodeFormat, u.VarsFormat = formatByName(u.Code), formatByName(u.Vars)
		all = append(all, u)
	}
	return all
}

func formatByName(path string) string {
	if filepath.Ext(path) == ".qcow2" {
		return "qcow2"
	}
	return "raw"
}

// shareDirs are the directories in which QEMU itself looks for its files, each once.
func shareDirs(ctx context.Context, system string) ([]string, error) {
	out, err := ask(ctx, system, "-L", "help")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for dir := range strings.Lines(out) {
		if dir = filepath.Clean(strings.TrimSpace(dir)); filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// Firmware is what QEMU has to boot guests by; "" where there is none.
type Firmware struct {
	BIOS string
	UEFI string // the code
}

// biosFile is SeaBIOS for the machine types that Castra uses.
const biosFile = "bios-256k.bin"

// SeaBIOS is what holds the BIOS of amd64 guests.
var SeaBIOS = Package{Apt: "seabios", Dnf: "seabios-bin", Pacman: "seabios", Brew: "qemu"}

// FindFirmware looks in the directories that QEMU itself would look in, and
// for UEFI where FindUEFI does. The guests are those of the program's name.
func FindFirmware(ctx context.Context, system string) (Firmware, error) {
	dirs, err := shareDirs(ctx, system)
	if err != nil {
		return Firmware{}, err
	}
	var f Firmware
	arch := "amd64"
	if strings.HasSuffix(filepath.Base(system), "aarch64") {
		arch = "arm64"
	}
	for _, dir := range dirs {
		if path := filepath.Join(dir, biosFile); arch == "amd64" && f.BIOS == "" && readable(path) {
			f.BIOS = path
		}
	}
	if found, err := SystemFirmware().findUEFI(dirs, arch); err == nil { // none is no error here
		f.UEFI = found.Code
	}
	return f, nil
}

func readable(path string) bool {
	f, _, err := openRegular(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
