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
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// recipe changes whenever the Go code of this package builds something else from the same embedded files.
const recipe = "1"

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
}

// Lookup returns where Build puts the guest under home, and whether it is there and complete.
func Lookup(home string) (Guest, bool) {
	g := guestIn(filepath.Join(home, guestsDir, dirName()))
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

// Build returns the small guest, building it first where home, an absolute path, has none of this recipe: about 10 s, once the
// packages (33 MB) are fetched. Several builders build once; progress, which may be nil, hears what is being done. Errors are *HostError where
// this host cannot build it, *CommandError where a program did not do its part.
func Build(ctx context.Context, home string, progress func(string)) (Guest, error) {
	if g, ok := Lookup(home); ok {
		return g, nil
	}
	if progress == nil {
		progress = func(string) {}
	}
	g, err := build(ctx, home, progress)
	if err != nil {
		return Guest{}, fmt.Errorf("build the small guest: %w", err)
	}
	return g, nil
}

func build(ctx context.Context, home string, progress func(string)) (Guest, error) {
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
	if g, ok := Lookup(home); ok {
		return g, nil
	}
	root, err := os.OpenRoot(guests)
	if err != nil {
		return Guest{}, err
	}
	defer root.Close()
	return buildLocked(ctx, root, host, progress)
}

// buildLocked works in a directory of its own and renames its outcome into place, so that what Lookup finds is whole.
func buildLocked(ctx context.Context, root *os.Root, host tools, progress func(string)) (_ Guest, err error) {
	if err := removeLeftovers(root); err != nil {
		return Guest{}, err
	}
	work := workPrefix + fmt.Sprint(os.Getpid())
	if err := root.Mkdir(work, 0o755); err != nil {
		return Guest{}, err
	}
	defer func() { err = errors.Join(err, root.RemoveAll(work)) }()

	b := &builder{host: host, guests: root.Name(), work: filepath.Join(root.Name(), work), progress: progress, started: time.Now()}
	if err := b.run(ctx); err != nil {
		return Guest{}, err
	}
	final := dirName()
	if err := root.RemoveAll(final); err != nil { // incomplete, or Lookup had taken it
		return Guest{}, err
	}
	if err := root.Rename(filepath.Join(work, outDir), final); err != nil {
		return Guest{}, err
	}
	return guestIn(filepath.Join(root.Name(), final)), nil
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
		if e.IsDir() && strings.HasPrefix(e.Name(), workPrefix) {
			if err := root.RemoveAll(e.Name()); err != nil {
				return fmt.Errorf("remove what a killed build left: %w", err)
			}
		}
	}
	return nil
}

func guestIn(dir string) Guest {
	return Guest{
		Dir:      dir,
		Disk:     filepath.Join(dir, diskName),
		Kernel:   filepath.Join(dir, kernelName),
		Initrd:   filepath.Join(dir, initrdName),
		Manifest: filepath.Join(dir, manifestName),
		Append:   commandLine(),
		User:     "root",
	}
}

func dirName() string { return "small-" + recipeDigest()[:12] }

// recipeDigest covers what goes in and how: the embedded files and the constants of the build.
func recipeDigest() string {
	h := sha256.New()
	fmt.Fprintln(h, recipe, guestPackages, kernelPackage, diskModules, moduleSets, fatSectors, rootSectors)
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

func commandLine() string { return strings.TrimSpace(string(guestFile("root/boot/cmdline"))) }
