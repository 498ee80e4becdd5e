package small

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// Layout of the disk in sectors of 512 bytes: MBR, the FAT partition that it boots from, the root file system.
const (
	sectorSize  = 512
	fatStart    = 2048
	fatStep     = 16 << 20 / sectorSize // the FAT partition's size is a multiple, and two at least
	rootSectors = 256 << 20 / sectorSize
)

// maxFAT is what FAT16 can hold in clusters of 4 KiB, in sectors.
const maxFAT = 240 << 20 / sectorSize

// Partition types and the flag of the one that an MBR's code starts. The EFI system partition is a FAT like any other to BIOS.
const (
	typeEFI   = 0xef
	typeLinux = 0x83
	active    = 0x80
)

const (
	fatSerial = "CA57A001"
	rootUUID  = "ca57a000-0000-4000-8000-000000000001"
	// rootFeatures are named in full because a host's defaults differ. Checksums would only cost time under emulation.
	rootFeatures = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize"
)

// makeDisk builds the two partitions as files, joins them under an MBR and converts the outcome to qcow2.
func (b *builder) makeDisk(ctx context.Context) error {
	root, fat, raw := b.path("root.img"), b.path("fat.img"), b.path("disk.raw")
	if err := b.makeRoot(ctx, root); err != nil {
		return err
	}
	fatSectors, err := b.makeFAT(ctx, fat)
	if err != nil {
		return err
	}
	mbr, err := b.masterBootRecord(fatSectors)
	if err != nil {
		return err
	}
	if err := joinDisk(raw, mbr, fat, fatSectors, root); err != nil {
		return err
	}
	// Not compressed: the kernel is already, and unpacking clusters would cost every boot.
	args := []string{"convert", "-f", "raw", "-O", "qcow2", raw, b.path(outDir, diskName)}
	_, err = command{path: b.host.qemuImg, args: args}.run(ctx)
	return err
}

// makeRoot fills an ext4 from the tree. mke2fs takes over the owner and the times of the builder's files, so debugfs then
// gives all to root.
func (b *builder) makeRoot(ctx context.Context, image string) error {
	mke2fs, debugfs, env, err := b.fsTools()
	if err != nil {
		return err
	}
	args := []string{
		"-q", "-F", "-t", "ext4", "-O", rootFeatures, "-b", "4096", "-I", "256", "-N", "8192", "-m", "0", "-J", "size=4",
		"-L", "castra-root", "-U", rootUUID, "-E", "root_owner=0:0,lazy_itable_init=0,nodiscard,hash_seed=" + rootUUID,
		"-d", b.path(treeDir), image, fmt.Sprintf("%dk", rootSectors/2),
	}
	if _, err := (command{path: mke2fs, args: args, env: env}).run(ctx); err != nil {
		return err
	}
	paths, err := treePaths(b.path(treeDir))
	if err != nil {
		return err
	}
	var script bytes.Buffer
	for _, path := range paths {
		for _, field := range []string{"uid 0", "gid 0", "atime @" + epochText, "ctime @" + epochText, "mtime @" + epochText, "crtime @" + epochText} {
			fmt.Fprintf(&script, "set_inode_field %s %s\n", path, field)
		}
	}
	_, err = command{path: debugfs, args: []string{"-w", "-f", "/dev/stdin", image}, in: script.Bytes(), env: env}.run(ctx)
	return err
}

// fsTools are the host's, or those unpacked beside the build.
func (b *builder) fsTools() (mke2fs, debugfs string, env []string, err error) {
	if b.host.mke2fs != "" && b.host.debugfs != "" {
		return b.host.mke2fs, b.host.debugfs, nil, nil
	}
	if mke2fs, err = findFile(b.path(toolDir), "/sbin/mke2fs"); err != nil {
		return "", "", nil, err
	}
	if debugfs, err = findFile(b.path(toolDir), "/sbin/debugfs"); err != nil {
		return "", "", nil, err
	}
	host, _ := targetFor(runtime.GOARCH) // findTools has looked
	libs := []string{b.path(toolDir, host.libDir), b.path(toolDir, "usr", host.libDir)}
	return mke2fs, debugfs, []string{"LD_LIBRARY_PATH=" + strings.Join(libs, ":")}, nil
}

// masterBootRecord is the partition table, with syslinux's code, which starts the active partition, where the disk boots by BIOS.
func (b *builder) masterBootRecord(fatSectors uint32) ([]byte, error) {
	mbr := make([]byte, sectorSize)
	if b.target.bios() {
		file, err := findFile(b.path(toolDir), "/SYSLINUX/mbr.bin")
		if err != nil {
			return nil, err
		}
		code, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if len(code) > 440 {
			return nil, fmt.Errorf("%s: %d bytes of boot code, an MBR has room for 440", file, len(code))
		}
		copy(mbr, code)
	}
	binary.LittleEndian.PutUint32(mbr[440:], 0xca57a000)
	partition(mbr[446:], active, typeEFI, fatStart, fatSectors)
	partition(mbr[462:], 0, typeLinux, fatStart+fatSectors, rootSectors)
	mbr[510], mbr[511] = 0x55, 0xaa
	return mbr, nil
}

// partition writes a table entry; the old cylinder fields say "see the sector numbers".
func partition(entry []byte, status, kind byte, start, sectors uint32) {
	copy(entry, []byte{status, 0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], start)
	binary.LittleEndian.PutUint32(entry[12:], sectors)
}

func joinDisk(raw string, mbr []byte, fat string, fatSectors uint32, root string) error {
	rootStart := fatStart + int64(fatSectors)
	disk, err := os.Create(raw)
	if err != nil {
		return err
	}
	_, err = disk.WriteAt(mbr, 0)
	err = errors.Join(err,
		copySparse(disk, fatStart*sectorSize, fat),
		copySparse(disk, rootStart*sectorSize, root),
		disk.Truncate((rootStart+rootSectors)*sectorSize))
	return errors.Join(err, disk.Close())
}

// copySparse copies what is not zero.
func copySparse(disk *os.File, offset int64, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	block, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(f, block)
		if n > 0 && !bytes.Equal(block[:n], zero[:n]) {
			if _, err := disk.WriteAt(block[:n], offset); err != nil {
				return err
			}
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", from, err)
		}
	}
}
