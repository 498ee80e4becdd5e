package small

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// need is a package by its names: distributions, and releases of one, name some differently. The first that is there is taken.
type need []string

var (
	// guestNeeds go into the guest with the libraries they depend on.
	guestNeeds = []need{{"busybox-static"}, {"dropbear-bin"}, {"e2fsprogs"}}
	// loaderNeed holds systemd-boot: a package of its own since Debian 12 and Ubuntu 23.04, part of systemd before.
	loaderNeed = need{"systemd-boot-efi", "systemd"}
	// toolNeeds are run on the host from where they are unpacked, so nothing needs to be installed.
	toolNeeds = []need{{"mtools"}}
	// guestSkips and toolSkips are dependencies that nothing here uses, or that every host has.
	guestSkips = []string{"libgcc-s1", "logsave"}
	toolSkips  = []string{"libc6", "logsave"}
)

// packagesDir keeps the fetched packages, so that a change of recipe does not fetch again; aptDir begins the names of apt's
// private directories.
const (
	packagesDir = "packages"
	aptDir      = "apt"
)

// pkg is one binary package as apt knows it.
type pkg struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	File    string `json:"file"`
	SHA256  string `json:"sha256"`
	License string `json:"license,omitempty"` // as its copyright file names it; see licenseIn
	depends []string
}

func (p pkg) fetchable() bool { return p.SHA256 != "" && p.File != "." && p.File != "" }

// dependsOn returns the first package p depends on whose name begins so.
func (p pkg) dependsOn(prefix string) (need, bool) {
	i := slices.IndexFunc(p.depends, func(n string) bool { return strings.HasPrefix(n, prefix) })
	if i < 0 {
		return nil, false
	}
	return need{p.depends[i]}, true
}

// packageSet is what a guest is built from, each package under packagesDir. Tools are the host's architecture, the rest the guest's.
type packageSet struct{ kernel, guest, loader, tools []pkg }

// all holds every package once: one may be both in the guest and a tool.
func (s packageSet) all() []pkg {
	var list []pkg
	for _, p := range slices.Concat(s.kernel, s.guest, s.loader, s.tools) {
		if !slices.ContainsFunc(list, func(q pkg) bool { return q.File == p.File }) {
			list = append(list, p)
		}
	}
	return list
}

// fetchPackages brings all packages into packagesDir.
func (b *builder) fetchPackages(ctx context.Context) (packageSet, error) {
	var guest, tools packageSet
	err := b.through(ctx, b.target.arch, func(a apt) (err error) {
		if guest, err = a.resolveGuest(ctx, b.target); err != nil {
			return err
		}
		return b.fetchWith(ctx, a, guest.all())
	})
	if err != nil {
		return packageSet{}, err
	}
	err = b.through(ctx, runtime.GOARCH, func(a apt) error {
		first, err := a.choose(ctx, b.toolNeeds())
		if err != nil {
			return err
		}
		if tools.tools, err = a.closure(ctx, first, toolSkips); err != nil {
			return err
		}
		return b.fetchWith(ctx, a, tools.tools)
	})
	guest.tools = tools.tools
	return guest, err
}

func (b *builder) fetchWith(ctx context.Context, a apt, list []pkg) error {
	dir := filepath.Join(b.guests, packagesDir)
	var missing []pkg
	for _, p := range list {
		if digest, err := fileDigest(filepath.Join(dir, p.File)); err != nil || digest != p.SHA256 {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	b.progress(fmt.Sprintf("fetching %d packages", len(missing)))
	return a.download(ctx, missing, b.path("incoming"), dir)
}

// resolveGuest finds what goes into the guest: packages, their versions and digests.
func (a apt) resolveGuest(ctx context.Context, t target) (packageSet, error) {
	first, err := a.choose(ctx, slices.Concat([]need{t.kernels, loaderNeed}, guestNeeds))
	if err != nil {
		return packageSet{}, err
	}
	set := packageSet{loader: first[1:2]}
	image, ok := first[0].dependsOn("linux-image-")
	if !ok {
		return packageSet{}, fmt.Errorf("package %s depends on no kernel", first[0].Name)
	}
	if set.kernel, err = a.choose(ctx, []need{image}); err != nil {
		return packageSet{}, err
	}
	// Ubuntu and Debian's later releases split the modules off, or the image too.
	var parts []need
	for _, prefix := range []string{"linux-modules-", "linux-binary-"} {
		if part, ok := set.kernel[0].dependsOn(prefix); ok {
			parts = append(parts, part)
		}
	}
	more, err := a.choose(ctx, parts)
	if err != nil {
		return packageSet{}, err
	}
	set.kernel = append(set.kernel, more...)
	set.guest, err = a.closure(ctx, first[2:], guestSkips)
	return set, err
}

// toolNeeds are the programs of packages that this build runs on the host.
func (b *builder) toolNeeds() []need {
	needs := slices.Clone(toolNeeds)
	if b.target.bios() {
		needs = append(needs, need{"syslinux"})
	}
	if b.target.foreign() {
		needs = append(needs, need{"busybox-static"}) // says what the guest's, which cannot run here, can do
	}
	if b.host.mke2fs == "" || b.host.debugfs == "" {
		needs = append(needs, need{"e2fsprogs"})
	}
	return needs
}

func (b *builder) unpackAll(ctx context.Context, set packageSet) error {
	kernel := func(name string) bool {
		return strings.Contains(name, "/modules/") || strings.HasPrefix(name, "boot/vmlinuz") || isCopyright(name)
	}
	loader := func(name string) bool { return strings.HasSuffix(name, b.target.bootLoader()) || isCopyright(name) }
	noDocs := func(name string) bool { return !strings.HasPrefix(name, "usr/share/") || isCopyright(name) }
	for _, part := range []struct {
		list []pkg
		dir  string
		keep func(name string) bool
	}{
		{set.kernel, pkgsDir, kernel}, {set.guest, pkgsDir, noDocs}, {set.loader, pkgsDir, loader}, {set.tools, toolDir, noDocs},
	} {
		for _, p := range part.list {
			if err := b.unpack(ctx, p, b.path(part.dir), part.keep); err != nil {
				return err
			}
		}
		setLicenses(part.list, func(elem ...string) string { return b.path(append([]string{part.dir}, elem...)...) })
	}
	return nil
}

// unpack streams a package's files below dir; want chooses them and may be nil.
func (b *builder) unpack(ctx context.Context, p pkg, dir string, want func(name string) bool) error {
	c := command{path: b.host.dpkgDeb, args: []string{"--fsys-tarfile", filepath.Join(b.guests, packagesDir, p.File)}}
	var stderr bytes.Buffer
	cmd := c.prepare(ctx, &stderr)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return c.failed(ctx, err, &stderr)
	}
	tarErr := untar(pipe, dir, want)
	if tarErr == nil {
		_, tarErr = io.Copy(io.Discard, pipe)
	}
	pipe.Close() // ends dpkg-deb where untar gave up
	if err := cmd.Wait(); err != nil && tarErr == nil {
		return c.failed(ctx, err, &stderr)
	}
	if tarErr != nil {
		return fmt.Errorf("unpack %s: %w", p.File, tarErr)
	}
	return nil
}
