package small

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// recipe changes whenever the Go code of this package builds something else from the same embedded files.
const recipe = "2"

// guestsDir is the directory below home that this package works in, lockName the file in it that a build locks.
const (
	guestsDir = "guests"
	lockName  = "small.lock"
)

// Files of a finished guest.
const (
	diskName     = "disk.qcow2"
	kernelName   = "vmlinux"
	initrdName   = "initrd"
	manifestName = "manifest.json"
)

// lockRetry is how often a waiting builder looks whether the other one has ended.
const lockRetry = 100 * time.Millisecond

// lockWait is how long it waits at most: longer than a build with slow fetching takes.
const lockWait = 15 * time.Minute

//go:embed root
var guestFiles embed.FS

// Guest is a built small guest. The paths are absolute and the files are read-only: boot an overlay of Disk.
type Guest struct {
	Dir, Disk, Kernel, Initrd, Manifest string
	Append                              string // kernel command line for direct kernel boot
	User                                string // who may log in with the seed's key
	Arch                                string // as Go names it
}

// Lookup is LookupFor this host's architecture.
func Lookup(home string) (Guest, bool) { return LookupFor(home, runtime.GOARCH) }

// LookupFor returns where BuildFor puts the guest of an architecture, by Go's name, under home, and whether it is there and
// complete. The guest is zero where there is none for arch.
func LookupFor(home, arch string) (Guest, bool) {
	t, ok := targetFor(arch)
	if !ok {
		return Guest{}, false
	}
	g := guestIn(filepath.Join(home, guestsDir, dirName(t)), t)
	m, err := ReadManifest(g.Manifest)
	if err != nil || len(m.Outputs) == 0 {
		return g, false
	}
	for _, out := range m.Outputs {
		info, err := os.Stat(filepath.Join(g.Dir, out.Name))
		if err != nil || info.Size() != out.Bytes {
			return g, false
		}
	}
	return g, true
}

// Build is BuildFor this host's architecture.
func Build(ctx context.Context, home string, progress func(string)) (Guest, error) {
	return BuildFor(ctx, home, runtime.GOARCH, progress)
}

// BuildFor returns the small guest of an architecture, by Go's name, building it first where home, an absolute path, has none of
// this recipe: about 10 s, once the packages (35 MB) are fetched. Several builders build once; progress, which may be nil, hears
// what is being done. Errors are *HostError where this host cannot build it or its package lists lack something, *CommandError
// where a program did not do its part.
func BuildFor(ctx context.Context, home, arch string, progress func(string)) (Guest, error) {
	if g, ok := LookupFor(home, arch); ok {
		return g, nil
	}
	if progress == nil {
		progress = func(string) {}
	}
	g, err := build(ctx, home, arch, progress)
	if err != nil {
		return Guest{}, fmt.Errorf("build the small guest: %w", err)
	}
	return g, nil
}

func build(ctx context.Context, home, arch string, progress func(string)) (Guest, error) {
	t, ok := targetFor(arch)
	if !ok {
		return Guest{}, &HostError{Arch: arch}
	}
	host, err := findTools()
	if err != nil {
		return Guest{}, err
	}
	if !filepath.IsAbs(home) {
		return Guest{}, fmt.Errorf("home %q: not an absolute path", home)
	}
	guests := filepath.Join(home, guestsDir)
	if err := os.MkdirAll(filepath.Join(guests, packagesDir), 0o755); err != nil {
		return Guest{}, err
	}
	unlock, err := lock(ctx, filepath.Join(guests, lockName), progress)
	if err != nil {
		return Guest{}, err
	}
	defer func() { _ = unlock() }() // it goes with the process all the same
	if g, ok := LookupFor(home, arch); ok {
		return g, nil
	}
	root, err := os.OpenRoot(guests)
	if err != nil {
		return Guest{}, err
	}
	defer root.Close()
	work := workPrefix + fmt.Sprint(os.Getpid())
	b := &builder{
		host: host, target: t, guests: root.Name(), work: filepath.Join(root.Name(), work), progress: progress,
		started: time.Now(), updated: make(map[string]bool),
	}
	return b.inside(ctx, root, work)
}

// inside works in a directory of its own and renames its outcome into place, so that what Lookup finds is whole.
func (b *builder) inside(ctx context.Context, root *os.Root, work string) (_ Guest, err error) {
	if err := removeLeftovers(root); err != nil {
		return Guest{}, err
	}
	if err := root.Mkdir(work, 0o755); err != nil {
		return Guest{}, err
	}
	defer func() { err = errors.Join(err, root.RemoveAll(work)) }()

	if err := b.run(ctx); err != nil {
		return Guest{}, err
	}
	final := dirName(b.target)
	if err := root.RemoveAll(final); err != nil { // incomplete, or Lookup had taken it
		return Guest{}, err
	}
	if err := root.Rename(filepath.Join(work, outDir), final); err != nil {
		return Guest{}, err
	}
	return guestIn(filepath.Join(root.Name(), final), b.target), nil
}

func lock(ctx context.Context, path string, progress func(string)) (func() error, error) {
	l := flock.New(path)
	ok, err := l.TryLock()
	if err == nil && !ok {
		progress(fmt.Sprintf("waiting for another build, at most %s", lockWait))
		limited, cancel := context.WithTimeout(ctx, lockWait)
		defer cancel()
		_, err = l.TryLockContext(limited, lockRetry)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return l.Unlock, nil
}

// workPrefix names the directories builds work in. Only the holder of the lock makes them, so any that it finds is a leftover.
const workPrefix = "small-build-"

func removeLeftovers(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && workName.MatchString(e.Name()) {
			if err := root.RemoveAll(e.Name()); err != nil {
				return fmt.Errorf("remove what a killed build left: %w", err)
			}
		}
	}
	return nil
}

func guestIn(dir string, t target) Guest {
	return Guest{
		Dir:      dir,
		Disk:     filepath.Join(dir, diskName),
		Kernel:   filepath.Join(dir, kernelName),
		Initrd:   filepath.Join(dir, initrdName),
		Manifest: filepath.Join(dir, manifestName),
		Append:   t.commandLine(),
		User:     "root",
		Arch:     t.arch,
	}
}

// dirName is the guest's below guestsDir. That of amd64 is named as it was when there was no other.
func dirName(t target) string {
	if t.arch == "amd64" {
		return guestPrefix + recipeDigest(t)[:12]
	}
	return guestPrefix + t.arch + "-" + recipeDigest(t)[:12]
}

const guestPrefix = "small-"

// recipeDigest covers what goes in and how: the embedded files and the constants of the build.
func recipeDigest(t target) string {
	h := sha256.New()
	fmt.Fprintln(h, recipe, t, t.commandLine(), guestNeeds, loaderNeed, diskModules, t.moduleSets(), rootSectors)
	err := fs.WalkDir(guestFiles, "root", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data := guestFile(path)
		fmt.Fprintln(h, path, len(data))
		h.Write(data)
		return nil
	})
	if err != nil {
		panic(err) // the embedded files are part of this binary
	}
	return hex.EncodeToString(h.Sum(nil))
}

func guestFile(path string) []byte {
	data, err := guestFiles.ReadFile(path)
	if err != nil {
		panic(err) // the embedded files are part of this binary
	}
	return data
}
