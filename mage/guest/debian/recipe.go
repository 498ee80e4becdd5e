package debian

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"
)

// recipe changes whenever the code of this package builds something else from
// the same lists.
const recipe = "1"

// packages go in with what they depend on, without what they recommend.
// cloud-init renders its network by netplan, for systemd-networkd; the boot
// loader for UEFI is taken out of the guest.
var packages = []string{
	"linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd-sysv", "systemd-resolved", "dbus", "udev", "e2fsprogs", "fdisk",
	"cloud-init", "cloud-guest-utils", "netplan.io", "iproute2", "openssh-server", "sudo", "ca-certificates", "tzdata", "systemd-boot-efi",
}

// excludes are what dpkg leaves out; locale-gen needs the one file.
var excludes = []string{"path-exclude=/usr/share/man/*", "path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*", "path-include=/usr/share/locale/locale.alias"}

const (
	rootLabel = "castra-root"
	options   = "root=LABEL=" + rootLabel + " ro console=tty0 console=ttyS0,115200"
)

// early are files that are there before the kernel is installed, so that its
// initrd holds what disks need and no more: it is unpacked under emulation.
// What would begin to update or scrub the guest as it boots is off.
var early = []file{
	{name: "etc/initramfs-tools/conf.d/castra", text: "MODULES=list\nCOMPRESS=zstd\n"},
	{name: "usr/share/initramfs-tools/modules.d/castra", text: "virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\nahci\nnvme\next4\ncrc32c_generic\n"},
	{name: "etc/fstab", text: "LABEL=" + rootLabel + " / ext4 errors=remount-ro 0 1\n"},
	{name: "etc/systemd/system/apt-daily.timer", link: "/dev/null"},
	{name: "etc/systemd/system/apt-daily-upgrade.timer", link: "/dev/null"},
	{name: "etc/systemd/system/e2scrub_all.timer", link: "/dev/null"},
	{name: "etc/systemd/system/e2scrub_reap.service", link: "/dev/null"},
}

// hooks run on the host when all packages are in, with the tree as $1. The SSH
// host keys that the package made would be the same in every guest. Where no
// locale is set, cloud-init makes en_US.UTF-8, which takes half a minute under
// emulation.
var hooks = []string{
	`rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap`,
	`echo debian >"$1"/etc/hostname; echo LANG=C.UTF-8 >"$1"/etc/default/locale`,
}

// espFiles are what the loaders read: SYSLINUX under BIOS, systemd-boot under
// UEFI. Kernel and initrd lie beside them.
var espFiles = []file{
	{name: "syslinux.cfg", text: "DEFAULT debian\nPROMPT 0\nTIMEOUT 0\nLABEL debian\n  LINUX /vmlinuz\n  INITRD /initrd.img\n  APPEND " + options + "\n"},
	{name: "loader/loader.conf", text: "timeout 0\ndefault debian.conf\n"},
	{name: "loader/entries/debian.conf", text: "title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions " + options + "\n"},
}

type file struct{ name, text, link string }

// epoch is the time of the files that are ours.
var epoch = time.Unix(1700000000, 0)

// archive is a tar of files that belong to root.
func archive(files []file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	made := map[string]bool{".": true}
	for _, f := range files {
		var above []string
		for dir := path.Dir(f.name); !made[dir]; dir = path.Dir(dir) {
			above = append([]string{dir}, above...)
			made[dir] = true
		}
		for _, dir := range above {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch}); err != nil {
				return nil, err
			}
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.text)), ModTime: epoch}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(f.text)); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

func recipeDigest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %q %q %q %q %q %d %d %s", recipe, packages, excludes, early, hooks, espFiles, espSectors, diskSectors, strings.Join(ext4, " "))
	return hex.EncodeToString(h.Sum(nil))
}
