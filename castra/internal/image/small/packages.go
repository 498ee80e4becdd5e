package small

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// kernelPackage depends on the current kernel of the release.
const kernelPackage = "linux-image-cloud-amd64"

var (
	// guestPackages go into the guest with the libraries they depend on.
	guestPackages = []string{"busybox-static", "dropbear-bin"}
	// toolPackages are run on the host from where they are unpacked, so nothing needs to be installed.
	toolPackages = []string{"mtools", "syslinux"}
	// guestSkips and toolSkips are dependencies that nothing here uses, or that every host has.
	guestSkips = []string{"libgcc-s1"}
	toolSkips  = []string{"libc6", "logsave"}
)

// packagesDir keeps the fetched packages, so that a change of recipe does not fetch again; aptDir is apt's private state.
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
	depends []string
}

// packageSet is what a guest is built from, each package under packagesDir.
type packageSet struct{ kernel, guest, tools []pkg }

func (s packageSet) all() []pkg { return slices.Concat(s.kernel, s.guest, s.tools) }

// apt asks with the system's lists, or, when private is set, with lists of its own in that directory.
type apt struct {
	host    tools
	private string
}

// fetchPackages brings all packages into packagesDir. The system's lists are tried first: they are there already on most
// hosts. A host whose lists are empty or out of date is served from private ones, which need no root.
func (b *builder) fetchPackages(ctx context.Context) (packageSet, error) {
	set, sysErr := b.fetchWith(ctx, apt{host: b.host})
	if sysErr == nil || ctx.Err() != nil {
		return set, sysErr
	}
	b.progress("updating package lists")
	a := apt{host: b.host, private: filepath.Join(b.guests, aptDir)}
	if err := a.update(ctx); err != nil {
		return packageSet{}, errors.Join(sysErr, err)
	}
	set, err := b.fetchWith(ctx, a)
	if err != nil {
		return packageSet{}, errors.Join(sysErr, err)
	}
	return set, nil
}

func (b *builder) fetchWith(ctx context.Context, a apt) (packageSet, error) {
	set, err := a.resolve(ctx)
	if err != nil {
		return packageSet{}, err
	}
	dir := filepath.Join(b.guests, packagesDir)
	var missing []pkg
	for _, p := range set.all() {
		if digest, err := fileDigest(filepath.Join(dir, p.File)); err != nil || digest != p.SHA256 {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return set, nil
	}
	b.progress(fmt.Sprintf("fetching %d packages", len(missing)))
	incoming := filepath.Join(b.work, "incoming")
	if err := os.MkdirAll(incoming, 0o755); err != nil {
		return packageSet{}, err
	}
	return set, a.download(ctx, missing, incoming, dir)
}

// resolve finds the packages, their versions and digests.
func (a apt) resolve(ctx context.Context) (packageSet, error) {
	first, err := a.show(ctx, slices.Concat([]string{kernelPackage}, guestPackages, a.toolNames()))
	if err != nil {
		return packageSet{}, err
	}
	kernel := slices.IndexFunc(first[0].depends, func(n string) bool { return strings.HasPrefix(n, "linux-image-") })
	if kernel < 0 {
		return packageSet{}, fmt.Errorf("package %s depends on no kernel", kernelPackage)
	}
	var set packageSet
	if set.kernel, err = a.show(ctx, []string{first[0].depends[kernel]}); err != nil {
		return packageSet{}, err
	}
	if set.guest, err = a.closure(ctx, first[1:1+len(guestPackages)], guestSkips); err != nil {
		return packageSet{}, err
	}
	set.tools, err = a.closure(ctx, first[1+len(guestPackages):], toolSkips)
	return set, err
}

// closure adds to list what it depends on, and what that depends on.
func (a apt) closure(ctx context.Context, list []pkg, skip []string) ([]pkg, error) {
	seen := slices.Clone(skip)
	for _, p := range list {
		seen = append(seen, p.Name)
	}
	for level := list; len(level) > 0; list = slices.Concat(list, level) {
		var names []string
		for _, p := range level {
			for _, d := range p.depends {
				if !slices.Contains(seen, d) {
					seen, names = append(seen, d), append(names, d)
				}
			}
		}
		var err error
		if level, err = a.show(ctx, names); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (a apt) toolNames() []string {
	if a.host.mke2fs == "" || a.host.debugfs == "" {
		return append(slices.Clone(toolPackages), "e2fsprogs")
	}
	return toolPackages
}

// show returns the candidate of each package, in the order asked.
func (a apt) show(ctx context.Context, names []string) ([]pkg, error) {
	if len(names) == 0 {
		return nil, nil
	}
	args := append(a.options(), "show", "--no-all-versions")
	out, err := command{path: a.host.aptCache, args: append(args, names...)}.run(ctx)
	if err != nil {
		return nil, err
	}
	found := parsePackages(out)
	var list []pkg
	for _, name := range names {
		i := slices.IndexFunc(found, func(p pkg) bool { return p.Name == name })
		if i < 0 || found[i].SHA256 == "" || found[i].File == "." {
			return nil, &CommandError{Command: "apt-cache show " + name, Err: errors.New("not in the package lists")}
		}
		list = append(list, found[i])
	}
	return list, nil
}

// parsePackages reads the fields Castra needs from control paragraphs.
func parsePackages(text []byte) []pkg {
	var list []pkg
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ": ")
		if !ok || strings.HasPrefix(key, " ") {
			continue
		}
		if key == "Package" {
			list = append(list, pkg{Name: value})
		}
		if len(list) == 0 {
			continue
		}
		p := &list[len(list)-1]
		switch key {
		case "Version":
			p.Version = value
		case "Filename":
			p.File = path.Base(value)
		case "SHA256":
			p.SHA256 = value
		case "Depends", "Pre-Depends":
			p.depends = append(p.depends, parseDepends(value)...)
		}
	}
	return list
}

// parseDepends gives the names alone, of alternatives the first.
func parseDepends(value string) []string {
	var names []string
	for item := range strings.SplitSeq(value, ",") {
		name, _, _ := strings.Cut(item, "|")
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		name, _, _ = strings.Cut(name, ":")
		names = append(names, name)
	}
	return names
}

// download has apt fetch packages, checks them again and moves them into dir under the names that resolve gave.
func (a apt) download(ctx context.Context, missing []pkg, incoming, dir string) error {
	args := append(a.options(), "download")
	for _, p := range missing {
		args = append(args, p.Name+"="+p.Version)
	}
	if _, err := (command{path: a.host.aptGet, args: args, dir: incoming}).run(ctx); err != nil {
		return err
	}
	files, err := os.ReadDir(incoming)
	if err != nil {
		return err
	}
	digests := make(map[string]string)
	for _, f := range files {
		file := filepath.Join(incoming, f.Name())
		digest, err := fileDigest(file)
		if err != nil {
			return err
		}
		digests[digest] = file
	}
	for _, p := range missing {
		file, ok := digests[p.SHA256]
		if !ok {
			return fmt.Errorf("package %s %s: what apt fetched has another digest than sha256:%s", p.Name, p.Version, p.SHA256)
		}
		if err := os.Rename(file, filepath.Join(dir, p.File)); err != nil {
			return err
		}
	}
	return nil
}

func (a apt) update(ctx context.Context) error {
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.private, dir), 0o755); err != nil {
			return err
		}
	}
	_, err := command{path: a.host.aptGet, args: append(a.options(), "update")}.run(ctx)
	return err
}

// options make apt quiet and, for private lists, keep it out of the directories that belong to root. As root it would change
// to a user that may not write below home.
func (a apt) options() []string {
	opts := []string{"-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30"}
	if a.private == "" {
		return opts
	}
	return append(opts, "-o", "Dir::State="+filepath.Join(a.private, "state"), "-o", "Dir::Cache="+filepath.Join(a.private, "cache"),
		"-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Update::Error-Mode=any")
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
