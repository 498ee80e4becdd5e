package small

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// fatFile is one file of the FAT partition: where it goes, and where it is.
type fatFile struct{ to, from string }

// makeFAT makes the partition that firmware starts from, and returns its size in sectors. UEFI finds systemd-boot under the name
// that firmware looks for on a disk it does not know; BIOS finds syslinux. Both start the same kernel, initrd and command line.
func (b *builder) makeFAT(ctx context.Context, image string) (uint32, error) {
	files, err := b.fatFiles()
	if err != nil {
		return 0, err
	}
	sectors, err := fatSize(files)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		return 0, err
	}
	if err := os.Truncate(image, int64(sectors)*sectorSize); err != nil {
		return 0, err
	}
	bin := b.path(toolDir, "usr", "bin")
	steps := []command{
		{path: "mformat", args: []string{"-i", image, "-T", fmt.Sprint(sectors), "-h", "64", "-s", "32",
			"-H", fmt.Sprint(fatStart), "-N", fatSerial, "-v", "CASTRA", "-c", "8", "::"}},
	}
	if b.target.bios() {
		steps = append(steps, command{path: "syslinux", args: []string{"--install", image}})
	}
	steps = append(steps, command{path: "mmd", args: []string{"-i", image, "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries"}})
	for _, f := range files {
		steps = append(steps, command{path: "mcopy", args: []string{"-i", image, f.from, "::" + f.to}})
	}
	for _, step := range steps {
		step.path = filepath.Join(bin, step.path)
		// syslinux calls mtools by name and keeps its own file in TMPDIR.
		step.env = []string{"PATH=" + bin + ":/usr/bin:/bin", "TMPDIR=" + b.work, "MTOOLSRC=/dev/null", "MTOOLS_SKIP_CHECK=1"}
		if _, err := step.run(ctx); err != nil {
			return 0, err
		}
	}
	return sectors, nil
}

// fatFiles writes the boot loaders' configuration and lists all that goes into the partition.
func (b *builder) fatFiles() ([]fatFile, error) {
	loader, err := findFile(b.path(pkgsDir), b.target.bootLoader())
	if err != nil {
		return nil, err
	}
	files := []fatFile{
		{"/" + bootKernel, b.path(bootKernel)},
		{"/" + initrdName, b.path(outDir, initrdName)},
		{"/EFI/BOOT/" + b.target.efiBoot(), loader},
	}
	configs := []fatFile{{"/loader/loader.conf", "loader.conf"}, {"/loader/entries/small.conf", "small.conf"}}
	if b.target.bios() {
		configs = append(configs, fatFile{"/syslinux.cfg", "syslinux.cfg"})
	}
	for _, c := range configs {
		text := bytes.ReplaceAll(guestFile("root/boot/"+c.from), []byte("@CMDLINE@"), []byte(b.target.commandLine()))
		c.from = b.path(c.from)
		if err := os.WriteFile(c.from, text, 0o644); err != nil {
			return nil, err
		}
		files = append(files, c)
	}
	return files, nil
}

// fatSize is the sectors that the files need, with 2 MiB for the file system's own and what syslinux brings.
func fatSize(files []fatFile) (uint32, error) {
	need := int64(2 << 20)
	for _, f := range files {
		info, err := os.Stat(f.from)
		if err != nil {
			return 0, err
		}
		need += info.Size() + 4<<10
	}
	sectors := max(2*fatStep, (need/sectorSize+fatStep-1)/fatStep*fatStep)
	if sectors > maxFAT {
		return 0, fmt.Errorf("kernel and initrd are %d MiB, too large for the boot partition", need>>20)
	}
	return uint32(sectors), nil
}
