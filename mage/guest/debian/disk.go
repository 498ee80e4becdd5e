package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
)

// Layout of the disk in sectors: GPT, the FAT partition that both loaders boot
// from, and last, so that it can grow, the root file system.
const (
	sectorSize  = 512
	espStart    = 2048
	espSectors  = 64 << 20 / sectorSize
	rootStart   = espStart + espSectors
	diskSectors = 2 << 30 / sectorSize
	rootSectors = diskSectors - rootStart - 2048 // the second GPT is behind it
)

// biosLoader is code for sector 0: it starts the partition that has the
// attribute LegacyBIOSBootable. Its 440 bytes leave the table alone.
const biosLoader = "/usr/lib/syslinux/mbr/gptmbr.bin"

var ext4 = []string{"-q", "-F", "-t", "ext4", "-L", rootLabel, "-m", "1", "-E", "root_owner=0:0,lazy_itable_init=0,nodiscard"}

func (b *builder) makeRoot(ctx context.Context) error {
	args := slices.Concat(ext4, []string{"-d", treeDir, "root.img", fmt.Sprintf("%dk", rootSectors/2)})
	return b.owned(ctx, "mke2fs", args...)
}

func (b *builder) makeESP(ctx context.Context) error {
	from := map[string]string{"EFI/BOOT/BOOTX64.EFI": b.path(treeDir, "usr/lib/systemd/boot/efi/systemd-bootx64.efi")}
	for name, pattern := range map[string]string{"vmlinuz": "vmlinuz-*", "initrd.img": "initrd.img-*"} {
		found, err := filepath.Glob(b.path(treeDir, "boot", pattern))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("the guest has %d files boot/%s, not one", len(found), pattern)
		}
		from[name] = found[0]
	}
	if err := os.Mkdir(b.path("esp"), 0o755); err != nil {
		return err
	}
	for _, f := range espFiles {
		from[f.name] = b.path("esp", path.Base(f.name))
		if err := os.WriteFile(from[f.name], []byte(f.text), 0o600); err != nil {
			return err
		}
	}
	if err := blank(b.path("esp.img"), espSectors); err != nil {
		return err
	}
	steps := [][]string{
		{"mkfs.vfat", "-F", "32", "-n", "ESP", "esp.img"},
		{"syslinux", "--install", "esp.img"},
		{"mmd", "-i", "esp.img", "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries"},
	}
	for to, from := range from {
		steps = append(steps, []string{"mcopy", "-i", "esp.img", from, "::/" + to})
	}
	for _, step := range steps {
		if _, err := b.tool(ctx, step[0], step[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) makeDisk(ctx context.Context) error {
	raw := b.path("disk.raw")
	if err := blank(raw, diskSectors); err != nil {
		return err
	}
	table := fmt.Sprintf("label: gpt\nstart=%d, size=%d, type=U, name=esp, attrs=LegacyBIOSBootable\nstart=%d, size=%d, type=L, name=root\n",
		espStart, espSectors, rootStart, rootSectors)
	sfdisk := exec.CommandContext(ctx, b.host.tools["sfdisk"], "-q", "--no-reread", "--no-tell-kernel", raw)
	sfdisk.Stdin = bytes.NewReader([]byte(table))
	if out, err := sfdisk.CombinedOutput(); err != nil {
		return fmt.Errorf("sfdisk: %w: %s", err, out)
	}
	loader, err := os.ReadFile(biosLoader)
	if err != nil || len(loader) > 440 {
		return errors.Join(err, fmt.Errorf("%s: %d bytes", biosLoader, len(loader)))
	}
	disk, err := os.OpenFile(raw, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	if _, err := disk.WriteAt(loader, 0); err != nil {
		return err
	}
	err = errors.Join(put(disk, b.path("esp.img"), espStart), put(disk, b.path("root.img"), rootStart))
	if err != nil {
		return err
	}
	_, err = b.tool(ctx, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, filepath.Join(outDir, "disk.qcow2"))
	return err
}

func blank(path string, sectors int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(sectors*sectorSize), f.Close())
}

// put copies an image into the disk, past its zeros, so that the disk stays
// sparse.
func put(disk *os.File, from string, start int64) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	block, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := start * sectorSize; ; {
		n, err := io.ReadFull(f, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := disk.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", from, err)
		}
	}
}
