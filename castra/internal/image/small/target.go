package small

import (
	"runtime"
	"slices"
	"strings"
)

// target is what differs between the architectures that a guest is built for.
type target struct {
	arch    string // as Go and Debian name it
	kernels need
	libDir  string // where Debian's loader looks first
	// loaderDir is where programs say that the loader is.
	loaderDir string
	console   string // the kernel's name of QEMU's first serial port
	options   string // of the kernel, beside those in root/boot/cmdline
	efi       string // the architecture in the names of UEFI programs
	gpio      []string
}

// targets holds every architecture that there is a small guest for. The names of kernels are Debian's, then Ubuntu's.
var targets = []target{
	{
		arch: "amd64", kernels: need{"linux-image-cloud-amd64", "linux-image-virtual", "linux-image-generic"},
		libDir: "lib/x86_64-linux-gnu", loaderDir: "lib64", console: "ttyS0", options: "no_timer_check", efi: "x64",
	},
	{
		arch: "arm64", kernels: need{"linux-image-cloud-arm64", "linux-image-virtual", "linux-image-generic"},
		libDir: "lib/aarch64-linux-gnu", loaderDir: "lib", console: "ttyAMA0", efi: "aa64",
		// Extensions that cost time where they are emulated and that nothing in the guest needs: pointer authentication most.
		options: "arm64.nopauth arm64.nobti arm64.nomte arm64.nosve",
		gpio:    []string{"gpio_keys"},
	},
}

// targetFor returns the target for an architecture by Go's name.
func targetFor(arch string) (target, bool) {
	i := slices.IndexFunc(targets, func(t target) bool { return t.arch == arch })
	if i < 0 {
		return target{}, false
	}
	return targets[i], true
}

func (t target) foreign() bool { return t.arch != runtime.GOARCH }

// bios tells that the disk also boots through BIOS. Syslinux is a program for amd64 that installs itself, so a host of another
// architecture cannot run it.
func (t target) bios() bool { return t.arch == "amd64" && !t.foreign() }

func (t target) commandLine() string {
	return strings.Join([]string{"console=" + t.console, t.options, strings.TrimSpace(string(guestFile("root/boot/cmdline")))}, " ")
}

// efiBoot is the UEFI program that firmware starts from a disk it knows nothing of, bootLoader is what Debian calls systemd-boot.
func (t target) efiBoot() string    { return "BOOT" + strings.ToUpper(t.efi) + ".EFI" }
func (t target) bootLoader() string { return "/boot/efi/systemd-boot" + t.efi + ".efi" }

// moduleSets are on the root file system; each is loaded by itself, after those of the initrd, so no module may be in two that
// meet in one boot: seed serves a disk, cdrom a drive.
func (t target) moduleSets() []moduleSet {
	return []moduleSet{
		{name: "random", want: []string{"virtio_rng"}},
		{name: "network", want: []string{"virtio_net", "af_packet"}},
		{name: "seed", want: []string{"isofs"}},
		{name: "button", want: []string{"evdev", "button"}, optional: t.gpio},
		{name: "cdrom", want: []string{"isofs"}, optional: []string{"ata_piix", "ahci", "sr_mod"}},
		{name: "rest", optional: []string{"virtio_balloon", "vmgenid"}},
	}
}
