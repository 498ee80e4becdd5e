package small

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// epoch is the time of everything in the guest's file systems, so that the same packages give the same bytes.
const (
	epoch     = 1700000000
	epochText = "1700000000"
)

// Directories below a build's work directory.
const (
	outDir  = "out"  // becomes the guest's directory
	pkgsDir = "pkgs" // the unpacked packages of the guest and its kernel
	toolDir = "tool" // the unpacked packages that are run on the host
	treeDir = "tree" // the guest's root file system

	bootKernel = "vmlinuz" // the kernel that the disk's boot loaders start
)

// builder is one build, from package lists to out.
type builder struct {
	host     tools
	target   target
	guests   string          // <home>/guests
	work     string          // below guests; this build's alone
	updated  map[string]bool // architectures whose private package lists are new
	progress func(string)
	started  time.Time
}

func (b *builder) path(elem ...string) string {
	return filepath.Join(append([]string{b.work}, elem...)...)
}

func (b *builder) run(ctx context.Context) error {
	b.progress("looking for packages")
	set, err := b.fetchPackages(ctx)
	if err != nil {
		return err
	}
	fetched := time.Now()
	b.progress(fmt.Sprintf("unpacking %d packages", len(set.all())))
	if err := b.unpackAll(ctx, set); err != nil {
		return err
	}
	for _, dir := range []string{outDir, treeDir} {
		if err := os.Mkdir(b.path(dir), 0o755); err != nil {
			return err
		}
	}
	b.progress("building the initrd")
	if err := b.makeBoot(); err != nil {
		return err
	}
	b.progress("building the disk")
	if err := b.makeTree(ctx); err != nil {
		return err
	}
	if err := b.makeDisk(ctx); err != nil {
		return err
	}
	return b.writeManifest(set, fetched)
}

// makeBoot writes kernel and initrd into out, the kernel for the disk's boot loaders beside it, and the modules that are loaded
// later into the tree.
func (b *builder) makeBoot() error {
	if err := b.writeKernels(); err != nil {
		return err
	}
	modules, err := findModules(b.path(pkgsDir))
	if err != nil {
		return err
	}
	inInitrd := make(map[string]bool)
	list, err := modules.order(diskModules, inInitrd)
	if err != nil {
		return err
	}
	if err := b.writeInitrd(list); err != nil {
		return err
	}
	for _, set := range b.target.moduleSets() {
		list, err := modules.order(set, maps.Clone(inInitrd))
		if err != nil {
			return err
		}
		if err := b.addModules(set.name, list); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) writeKernels() error {
	// Not filepath.Glob, which would take a part of CASTRA_HOME for a pattern.
	names, err := fs.Glob(os.DirFS(b.path(pkgsDir, "boot")), "vmlinuz-*")
	if err != nil || len(names) != 1 {
		return fmt.Errorf("the kernel package holds %d kernels, not one", len(names))
	}
	onDisk, err := os.ReadFile(b.path(pkgsDir, "boot", names[0]))
	if err != nil {
		return err
	}
	var direct []byte
	if b.target.arch == "arm64" {
		onDisk = arm64Image(onDisk)
		direct = onDisk
	} else {
		direct = directKernel(onDisk)
	}
	if err := os.WriteFile(b.path(bootKernel), onDisk, 0o644); err != nil {
		return err
	}
	return os.WriteFile(b.path(outDir, kernelName), direct, 0o644)
}

func (b *builder) busybox() (string, error) { return findFile(b.path(pkgsDir), "bin/busybox") }

// initrdApplets are what root/initrd/init runs.
var initrdApplets = []string{"sh", "insmod", "mount", "umount", "dd", "blockdev", "chroot", "switch_root", "poweroff"}

// writeInitrd makes the smallest one that can reach the disk: a shell, the disk's drivers, and root/initrd/init.
func (b *builder) writeInitrd(modules []module) error {
	busybox, err := b.busybox()
	if err != nil {
		return err
	}
	shell, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	c := cpioWriter{w: &archive}
	for _, dir := range []string{"bin", "dev", "modules", "root"} {
		c.dir(dir, 0o755)
	}
	c.char("dev/console", 0o600, 5, 1)
	c.file("bin/busybox", 0o755, shell)
	for _, applet := range initrdApplets {
		c.link("bin/"+applet, "busybox")
	}
	var order strings.Builder
	for _, m := range modules {
		c.file("modules/"+m.name+".ko", 0o644, m.data)
		fmt.Fprintf(&order, "%s.ko\n", m.name)
	}
	c.file("modules/order", 0o644, []byte(order.String()))
	c.file("init", 0o755, bytes.ReplaceAll(guestFile("root/initrd/init"), []byte("@ROOT@"), fmt.Append(nil, rootSectors/2)))
	if err := c.close(); err != nil {
		return err
	}
	return os.WriteFile(b.path(outDir, initrdName), archive.Bytes(), 0o644)
}

func (b *builder) addModules(set string, modules []module) error {
	dir := b.path(treeDir, "lib", "modules")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var order strings.Builder
	for _, m := range modules {
		if err := os.WriteFile(filepath.Join(dir, m.name+".ko"), m.data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&order, "%s.ko\n", m.name)
	}
	return os.WriteFile(filepath.Join(dir, set+".order"), []byte(order.String()), 0o644)
}
