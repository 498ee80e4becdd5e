package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// UEFI is firmware in two parts, which the machine has as flash memory.
type UEFI struct {
	Code string // shared by all VMs, and never written to
	Vars string // the firmware's variables: of FindUEFI the template, in a Spec the VM's own copy
	// The formats are "raw" or "qcow2"; "" is raw. A copy has that of its template.
	CodeFormat, VarsFormat string
}

const (
	codeNode = "code"
	varsNode = "vars"

	flashBlock = 4 << 10 // what q35 wants flash to be a multiple of
	q35Flash   = 8 << 20 // and the most that it takes
	virtFlash  = 64 << 20
)

// flash is the firmware's two parts.
func (s Spec) flash() []string {
	if s.UEFI == (UEFI{}) {
		return nil
	}
	return []string{
		"-blockdev", fileNode(codeNode, cmp.Or(s.UEFI.CodeFormat, "raw"), s.UEFI.Code, true),
		"-blockdev", fileNode(varsNode, cmp.Or(s.UEFI.VarsFormat, "raw"), s.UEFI.Vars, false),
	}
}

// UEFIPackage is what holds the UEFI firmware for guests of an architecture.
func UEFIPackage(goarch string) Package {
	if goarch == "arm64" {
		return Package{Apt: "qemu-efi-aarch64", Dnf: "edk2-aarch64", Pacman: "edk2-aarch64", Brew: "qemu"}
	}
	return Package{Apt: "ovmf", Dnf: "edk2-ovmf", Pacman: "edk2-ovmf", Brew: "qemu"}
}

// MissingFirmwareError says: there is no UEFI firmware for guests of an architecture.
type MissingFirmwareError struct {
	Arch    string
	Tried   []string // descriptors and files that were looked at, with what is wrong with those that are there
	Package Package
}

func (e *MissingFirmwareError) Error() string {
	return fmt.Sprintf("no UEFI firmware for %s guests in any of %d known places", e.Arch, len(e.Tried))
}
func (e *MissingFirmwareError) Unwrap() error { return os.ErrNotExist }

// Hint gives the command that installs it.
func (e *MissingFirmwareError) Hint() string { return "install it: " + e.Package.Install() }

// FindUEFI looks for firmware without secure boot that the machine of an
// architecture boots by; system is the QEMU that will run it. It is first what
// QEMU's firmware descriptors name, then what the systems are known to have.
// None is a *MissingFirmwareError.
func FindUEFI(ctx context.Context, system, arch string) (UEFI, error) {
	return SystemFirmware().FindUEFI(ctx, system, arch)
}

// MakeVars makes the VM's own copy of the variables at path, with mode 0600, in
// place of an older one. Blocks of zeros take no room in it.
func MakeVars(template, path string) error {
	in, _, err := openRegular(template)
	if err != nil {
		return fmt.Errorf("UEFI variables: %w", err)
	}
	defer in.Close()
	out, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("UEFI variables: %w", err)
	}
	defer out.Cleanup()
	st, err := in.Stat()
	if err == nil {
		err = out.Truncate(st.Size())
	}
	if err == nil {
		err = host.CopySparse(context.Background(), in, out.File) // 64 MiB at most by FindUEFI
	}
	if err == nil {
		err = out.CloseAtomicallyReplace()
	}
	if err != nil {
		return fmt.Errorf("UEFI variables: copy %s to %s: %w", template, path, err)
	}
	return nil
}

var errNoFile = errors.New("no regular file")

// openRegular never waits, also where a pipe stands at path, and follows links.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errNoFile}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// check says what keeps the firmware from being the machine's.
func (u UEFI) check(arch string) error {
	code, err := flashSize(u.Code, u.CodeFormat)
	if err != nil {
		return err
	}
	vars, err := flashSize(u.Vars, u.VarsFormat)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		path string
		size int64
	}{{u.Code, code}, {u.Vars, vars}} {
		switch {
		case arch == "arm64" && part.size != virtFlash:
			return fmt.Errorf("%s: %d bytes, and the machine's flash has %d", part.path, part.size, virtFlash)
		case part.size == 0 || part.size%flashBlock != 0:
			return fmt.Errorf("%s: %d bytes, and flash is a multiple of %d", part.path, part.size, flashBlock)
		}
	}
	if arch != "arm64" && code+vars > q35Flash {
		return fmt.Errorf("%s: with its variables %d bytes, and the machine takes %d", u.Code, code+vars, q35Flash)
	}
	return nil
}

func flashSize(path, format string) (int64, error) {
	f, st, err := openRegular(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, isQcow2 := qcow2Size(f)
	switch {
	case format == "qcow2" && !isQcow2:
		return 0, fmt.Errorf("%s: no qcow2", path)
	case format == "qcow2":
		return int64(min(size, maxVirtualSize)), nil //nolint:gosec // bounded
	default:
		return st.Size(), nil
	}
}
