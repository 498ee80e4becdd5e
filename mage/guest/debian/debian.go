// Package debian builds a Debian with real cloud-init, systemd and OpenSSH
// from the packages of the Debian that it runs on, for tests to boot. Nothing
// is mounted and no image is downloaded. It starts by BIOS and by UEFI.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	guestsDir  = "guests" // below home, as for the small guest
	lockName   = "debian.lock"
	workPrefix = "debian-build-" // only the holder of the lock makes these
	lockRetry  = 200 * time.Millisecond
	lockWait   = 40 * time.Minute // longer than buildLimit
	buildLimit = 30 * time.Minute // two minutes are usual
)

// Guest is a built guest: read-only files, at absolute paths. Boot an overlay
// of Disk. No user of its own can log in; cloud-init makes one of NoCloud's.
type Guest struct{ Dir, Disk, Manifest string }

// HostError says: this computer cannot build the guest.
type HostError struct{ Reason, Next string }

func (e *HostError) Error() string { return "this computer cannot build a Debian guest: " + e.Reason }

// Hint says what to do next.
func (e *HostError) Hint() string { return e.Next }

// Home is where Castra keeps what it shares: CASTRA_HOME, or else ~/.castra.
func Home() (string, error) {
	if home := os.Getenv("CASTRA_HOME"); home != "" {
		return filepath.Abs(home)
	}
	user, err := os.UserHomeDir()
	return filepath.Join(user, ".castra"), err
}

// Ensure returns the guest, building it first where home, an absolute path,
// has none of this recipe: about two minutes. Several callers build once. log
// hears what is done. Errors are *HostError where this host cannot build it.
func Ensure(ctx context.Context, home string, log io.Writer) (Guest, error) {
	h, err := thisHost(ctx)
	if err != nil {
		return Guest{}, err
	}
	if g, ok := lookup(home, h.release); ok {
		return g, nil
	}
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	g, err := build(ctx, home, h, log)
	if err != nil {
		return Guest{}, fmt.Errorf("build the Debian guest: %w", err)
	}
	return g, nil
}

// lookup takes a guest for whole when its manifest is there and its disk is of
// the size that this tells.
func lookup(home, release string) (Guest, bool) {
	g := guestIn(filepath.Join(home, guestsDir, dirName(release)))
	m, err := ReadManifest(g.Manifest)
	if err != nil || m.Bytes == 0 {
		return g, false
	}
	info, err := os.Stat(g.Disk)
	return g, err == nil && info.Mode().IsRegular() && info.Size() == m.Bytes
}

func guestIn(dir string) Guest {
	return Guest{dir, filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "manifest.json")}
}

func dirName(release string) string { return "debian-" + release + "-" + recipeDigest()[:12] }

func build(ctx context.Context, home string, h host, log io.Writer) (_ Guest, err error) {
	if !filepath.IsAbs(home) {
		return Guest{}, fmt.Errorf("home %q: not an absolute path", home)
	}
	guests := filepath.Join(home, guestsDir)
	if err := os.MkdirAll(guests, 0o755); err != nil {
		return Guest{}, err
	}
	unlock, err := lock(ctx, filepath.Join(guests, lockName), log)
	if err != nil {
		return Guest{}, err
	}
	defer unlock()
	if g, ok := lookup(home, h.release); ok {
		return g, nil
	}
	root, err := os.OpenRoot(guests)
	if err != nil {
		return Guest{}, err
	}
	defer root.Close()
	if err := removeLeftovers(root); err != nil {
		return Guest{}, err
	}
	work := workPrefix + fmt.Sprint(os.Getpid())
	if err := root.Mkdir(work, 0o755); err != nil {
		return Guest{}, err
	}
	defer func() { err = errors.Join(err, root.RemoveAll(work)) }()
	b := &builder{host: h, work: filepath.Join(guests, work), log: log, started: time.Now()}
	if err := b.run(ctx); err != nil {
		return Guest{}, err
	}
	final := dirName(h.release)
	if err := root.RemoveAll(final); err != nil { // incomplete, or lookup had taken it
		return Guest{}, err
	}
	return guestIn(filepath.Join(guests, final)), root.Rename(filepath.Join(work, outDir), final)
}

func lock(ctx context.Context, path string, log io.Writer) (unlock func(), err error) {
	l := flock.New(path)
	ok, err := l.TryLock()
	if err == nil && !ok {
		fmt.Fprintf(log, "waiting for another build, at most %s\n", lockWait)
		limited, cancel := context.WithTimeout(ctx, lockWait)
		defer cancel()
		_, err = l.TryLockContext(limited, lockRetry)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = l.Unlock() }, nil // it goes with the process all the same
}

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
