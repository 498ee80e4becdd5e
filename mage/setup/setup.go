// Package setup installs what this repository's targets need on a machine that
// has only Go and a package manager.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Tool is a program, or a file by the pattern of its path, and the packages that hold it, by package manager.
type Tool struct {
	Name     string
	Packages map[string]string
}

// QEMU is what Castra itself runs.
var QEMU = []Tool{
	{"qemu-system-x86_64", map[string]string{"apt-get": "qemu-system-x86", "dnf": "qemu-system-x86-core", "pacman": "qemu-system-x86", "brew": "qemu"}},
	{"qemu-img", map[string]string{"apt-get": "qemu-utils", "dnf": "qemu-img", "pacman": "qemu-img", "brew": "qemu"}},
}

// Machines is what guests of another architecture, and those that boot by UEFI, need besides.
var Machines = []Tool{
	{"qemu-system-aarch64", map[string]string{"apt-get": "qemu-system-arm", "dnf": "qemu-system-aarch64-core", "pacman": "qemu-system-aarch64", "brew": "qemu"}},
	{"/usr/share/qemu/firmware/*edk2-aarch64*.json", map[string]string{"apt-get": "qemu-efi-aarch64", "dnf": "edk2-aarch64", "pacman": "edk2-aarch64", "brew": "qemu"}},
	{"/usr/share/qemu/firmware/*edk2-x86_64*.json", map[string]string{"apt-get": "ovmf", "dnf": "edk2-ovmf", "pacman": "edk2-ovmf", "brew": "qemu"}},
}

// Compiler is what the race detector needs.
var Compiler = []Tool{
	{"gcc", map[string]string{"apt-get": "gcc libc6-dev", "dnf": "gcc glibc-devel", "pacman": "gcc"}},
}

// Debian is what builds a Debian guest. That takes a Debian, so there are no
// names for others. Who is not root also needs what lends the owners of files.
func Debian() []Tool {
	apt := func(name, packages string) Tool { return Tool{name, map[string]string{"apt-get": packages}} }
	tools := []Tool{
		apt("mmdebstrap", "mmdebstrap"), apt("mke2fs", "e2fsprogs"), apt("sfdisk", "fdisk"), apt("mkfs.vfat", "dosfstools"),
		apt("mcopy", "mtools"), apt("mmd", "mtools"), apt("syslinux", "syslinux syslinux-common"), apt("apt-config", "apt"),
	}
	if os.Geteuid() != 0 {
		tools = append(tools, apt("fakeroot", "fakeroot"), apt("newuidmap", "uidmap"))
	}
	return tools
}

// managers in the order they are looked for, with the commands that bring a
// package.
var managers = []struct {
	name     string
	asRoot   bool
	commands [][]string // the packages are added to the last
}{
	{"apt-get", true, [][]string{
		{"apt-get", "update", "-q"},
		{"apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, // another apt may be at work
	}},
	{"dnf", true, [][]string{{"dnf", "install", "-y"}}},
	{"pacman", true, [][]string{{"pacman", "-Sy", "--noconfirm"}}},
	{"brew", false, [][]string{{"brew", "install"}}},
}

const installLimit = 15 * time.Minute

// Find looks for a file by the pattern of its path; for a program along PATH, and where system tools are, which the
// PATH of who is not root may lack.
func Find(name string) (string, error) {
	if filepath.IsAbs(name) {
		found, err := filepath.Glob(name)
		if len(found) == 0 {
			return "", errors.Join(fs.ErrNotExist, err)
		}
		return found[0], err
	}
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	return path, err
}

// Ensure installs the tools that are missing, and says so on log. It needs
// root, or sudo without a password.
func Ensure(ctx context.Context, log io.Writer, tools ...Tool) error {
	var missing []Tool
	for _, t := range tools {
		if _, err := Find(t.Name); err != nil {
			missing = append(missing, t)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	for _, m := range managers {
		if _, err := exec.LookPath(m.name); err == nil {
			return install(ctx, log, m.name, m.asRoot, m.commands, missing)
		}
	}
	return fmt.Errorf("missing: %s; and none of apt-get, dnf, pacman, brew is here to install them", names(missing))
}

func install(ctx context.Context, log io.Writer, manager string, asRoot bool, commands [][]string, missing []Tool) error {
	var packages []string
	for _, t := range missing {
		for _, p := range strings.Fields(t.Packages[manager]) {
			if !slices.Contains(packages, p) {
				packages = append(packages, p)
			}
		}
	}
	fmt.Fprintf(log, "missing: %s. Installing with %s: %s\n", names(missing), manager, strings.Join(packages, " "))
	ctx, cancel := context.WithTimeout(ctx, installLimit)
	defer cancel()
	for i, command := range commands {
		args := slices.Clone(command)
		if i == len(commands)-1 {
			args = append(args, packages...)
		}
		if asRoot && os.Geteuid() != 0 {
			args = append([]string{"sudo", "-n"}, args...)
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w; install by hand: %s", strings.Join(args, " "), err, strings.Join(packages, " "))
		}
	}
	return nil
}

func names(tools []Tool) string {
	var s []string
	for _, t := range tools {
		s = append(s, t.Name)
	}
	return strings.Join(s, ", ")
}
