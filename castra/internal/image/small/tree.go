package small

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// guestPrograms are copied with the libraries they name.
var guestPrograms = []string{"usr/sbin/dropbear", "usr/bin/dropbearkey", "usr/bin/dropbearconvert", "usr/bin/dbclient", "sbin/resize2fs"}

// guestDirs are the directories that no file brings, with modes where they are not 0755.
var guestDirs = []struct {
	name string
	mode fs.FileMode
}{
	{"dev", 0o755}, {"proc", 0o755}, {"sys", 0o755}, {"run", 0o755}, {"mnt", 0o755}, {"home", 0o755}, {"srv", 0o755},
	{"var/log", 0o755}, {"var/tmp", 0o777 | fs.ModeSticky}, {"tmp", 0o777 | fs.ModeSticky},
	{"root", 0o700}, {"root/.ssh", 0o700}, {"usr/lib", 0o755},
}

// makeTree fills treeDir with the guest's root file system.
func (b *builder) makeTree(ctx context.Context) error {
	tree := b.path(treeDir)
	for _, d := range guestDirs {
		dir := filepath.Join(tree, d.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, d.mode); err != nil { // past the umask
			return err
		}
	}
	if err := b.addBusybox(ctx, tree); err != nil {
		return err
	}
	for _, program := range guestPrograms {
		if err := b.addProgram(program, filepath.Join(tree, program)); err != nil {
			return err
		}
	}
	if err := addGuestFiles(tree); err != nil {
		return err
	}
	return os.Symlink("/run", filepath.Join(tree, "var", "run"))
}

// addBusybox installs it with a link for every applet it names.
func (b *builder) addBusybox(ctx context.Context, tree string) error {
	busybox, err := b.busybox()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	list, err := b.applets(ctx, busybox, program)
	if err != nil {
		return err
	}
	if err := writeMode(filepath.Join(tree, "bin", "busybox"), program, 0o755); err != nil {
		return err
	}
	for _, applet := range list {
		link := filepath.Join(tree, filepath.FromSlash(applet))
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("/bin/busybox", link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// applets asks busybox itself, which is static, for its applets' paths. One of another architecture cannot be run: this host's,
// of the same release, is asked, and what the guest's program does not name between zeros, as it keeps its names, is left out.
func (b *builder) applets(ctx context.Context, busybox string, program []byte) ([]string, error) {
	if b.target.foreign() {
		var err error
		if busybox, err = findFile(b.path(toolDir), "bin/busybox"); err != nil {
			return nil, err
		}
	}
	out, err := command{path: busybox, args: []string{"--list-full"}}.run(ctx)
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(strings.Fields(string(out)), func(applet string) bool {
		return b.target.foreign() && !bytes.Contains(program, []byte("\x00"+path.Base(applet)+"\x00"))
	})
	if !slices.ContainsFunc(list, func(applet string) bool { return path.Base(applet) == "init" }) {
		return nil, fmt.Errorf("busybox has no init among its %d applets", len(list))
	}
	return list, nil
}

// addProgram copies a program or library of the packages, its loader, and the libraries it names.
func (b *builder) addProgram(name, to string) error {
	from, err := findFile(b.path(pkgsDir), "/"+name)
	if err != nil {
		return err
	}
	if from, err = filepath.EvalSymlinks(from); err != nil {
		return err
	}
	if err := copyFile(from, to, 0o755); err != nil {
		return err
	}
	file, err := elf.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, lib := range libraries {
		to := filepath.Join(b.path(treeDir), b.target.libDir, lib)
		if strings.HasPrefix(lib, "ld-linux") {
			to = filepath.Join(b.path(treeDir), b.target.loaderDir, lib)
		}
		if _, err := os.Stat(to); err == nil {
			continue
		}
		if err := b.addProgram(lib, to); err != nil {
			return err
		}
	}
	return nil
}

// addGuestFiles copies root/etc; scripts, known by their first line, are made executable.
func addGuestFiles(tree string) error {
	return fs.WalkDir(guestFiles, "root/etc", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(tree, strings.TrimPrefix(path, "root/"))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		data, mode := guestFile(path), fs.FileMode(0o644)
		if bytes.HasPrefix(data, []byte("#!")) {
			mode = 0o755
		}
		if strings.HasSuffix(path, "/shadow") {
			mode = 0o600
		}
		return writeMode(to, data, mode)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeMode(to, data, mode)
}

// writeMode also makes the directory, and gives the mode past the umask.
func writeMode(to string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(to, data, mode); err != nil {
		return err
	}
	return os.Chmod(to, mode)
}

// treePaths lists what is below dir as absolute paths inside the guest, sorted.
func treePaths(dir string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		paths = append(paths, "/"+filepath.ToSlash(rel))
		return err
	})
	slices.Sort(paths)
	return paths, err
}
