// Package hostile makes trees of files that no program should be trusted with,
// and swaps names in them while a program works there. What must not be touched
// is told by canaries. For tests alone.
package hostile

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Names that no sane program gives a file.
var odd = []string{
	"new\nline", "inv\xff\xfealid", strings.Repeat("l", 255), "-rf", " ", "*", "a\\b", "\x1b[2J", "…", ".swp~", "tab\there", "\u202Egnp.elif",
}

// Ground is a place for hostile trees, with canaries beside them.
type Ground struct {
	Dir     string // all is below it
	Outside string // a tree of canaries, with the names that are looked for inside
	Side    string // where the swapper keeps its symlinks

	names    []string
	canaries map[string]string // path to what a stat told
}

// New makes a ground in dir for trees that are made of these names, paths below
// their root.
func New(t testing.TB, dir string, names []string) *Ground {
	t.Helper()
	g := &Ground{Dir: dir, Outside: filepath.Join(dir, "outside"), Side: filepath.Join(dir, "side"), names: names, canaries: map[string]string{}}
	g.must(t, os.MkdirAll(g.Side, 0o700))
	g.Guard(t, g.Outside)
	return g
}

func (g *Ground) must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Guard fills a directory with canaries that have these names, or those of what
// is looked for, each also directly in it.
func (g *Ground) Guard(t testing.TB, dir string, names ...string) {
	t.Helper()
	if names == nil {
		names = g.names
	}
	g.must(t, os.MkdirAll(dir, 0o700))
	for n, name := range names {
		for _, path := range []string{filepath.Join(dir, name), filepath.Join(dir, filepath.Base(name))} {
			if st, err := os.Lstat(path); err == nil && st.IsDir() {
				path = filepath.Join(path, "canary")
			}
			g.must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			g.must(t, os.WriteFile(path, fmt.Appendf(nil, "canary %d", n), 0o640))
			g.canaries[path] = look(path)
		}
	}
}

// Forget drops the canaries below a directory, which is then removed.
func (g *Ground) Forget(dir string) {
	for path := range g.canaries {
		if strings.HasPrefix(path, dir+"/") {
			delete(g.canaries, path)
		}
	}
}

// Touched counts the canaries that are not as they were made, and names one.
func (g *Ground) Touched() (n int, first string) {
	for path, was := range g.canaries {
		if now := look(path); now != was {
			n++
			first = fmt.Sprintf("%s: %s, was %s", path, now, was)
		}
	}
	return n, first
}

// Canaries is how many there are.
func (g *Ground) Canaries() int { return len(g.canaries) }

// look tells whatever a write, a chmod or a removal would change. A hard link
// elsewhere may come and go.
func look(path string) string {
	st, err := os.Lstat(path)
	if err != nil {
		return "gone"
	}
	sys := st.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d %s %d %d %d", sys.Ino, st.Mode(), sys.Uid, st.Size(), st.ModTime().UnixNano())
}

// Plant puts up to n things into the tree at root, at its names and beside
// them. What is in the way is left.
func (g *Ground) Plant(r *rand.Rand, root string, n int) {
	for range 1 + r.IntN(n) {
		name := g.names[r.IntN(len(g.names))]
		switch r.IntN(10) {
		case 0:
			name = filepath.Join(filepath.Dir(name), odd[r.IntN(len(odd))])
		case 1:
			name = filepath.Join(name, odd[r.IntN(len(odd))])
		}
		g.plant(r, root, name)
	}
}

func (g *Ground) plant(r *rand.Rand, root, name string) {
	path := filepath.Join(root, name)
	if !plainDirs(root, filepath.Dir(name)) {
		return
	}
	canary := filepath.Join(g.Outside, g.names[r.IntN(len(g.names))])
	switch r.IntN(14) {
	case 0:
		_ = os.Symlink(canary, path)
	case 1:
		_ = os.Symlink(g.Outside, path)
	case 2:
		_ = os.Symlink([]string{".", "..", "../..", filepath.Base(name), "nowhere", "/", "../mine", "mine"}[r.IntN(8)], path)
	case 3, 4:
		_ = os.Link(canary, path)
	case 5:
		_ = unix.Mkfifo(path, 0o600)
	case 6:
		_ = unix.Mknod(path, unix.S_IFSOCK|0o600, 0)
	case 7:
		_ = os.MkdirAll(filepath.Join(path, strings.Repeat("d/", 1+r.IntN(12))), 0o700)
		_ = os.Link(canary, filepath.Join(path, "linked"))
		_ = os.Symlink(g.Outside, filepath.Join(path, "d", "out"))
	case 8:
		_ = os.Mkdir(path, []fs.FileMode{0, 0o500, 0o700, 0o777}[r.IntN(4)]|needed())
	default:
		if f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, []fs.FileMode{0o600, 0, 0o666, 0o400}[r.IntN(4)]); err == nil {
			_, _ = f.Write(make([]byte, r.IntN(64)))
			f.Close()
		}
	}
}

// needed are the bits without which the test itself could not look at a
// directory, or remove it.
func needed() fs.FileMode {
	if os.Getuid() == 0 {
		return 0
	}
	return 0o700
}

// plainDirs makes the directories of a name, and tells that none is a symlink:
// the planting must not touch a canary either.
func plainDirs(root, dir string) bool {
	at := root
	for part := range strings.SplitSeq(dir, "/") {
		at = filepath.Join(at, part)
		_ = os.Mkdir(at, 0o700)
		if st, err := os.Lstat(at); err != nil || !st.IsDir() {
			return false
		}
	}
	return true
}

// Paths lists all below a root, sorted, without following anything.
func Paths(root string) (all []string) {
	_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != root {
			all = append(all, strings.TrimPrefix(path, root+"/"))
		}
		return nil
	})
	return all
}

// Dir is a scratch directory in memory, where there is room for that: a hundred
// thousand trees on a disk would be a test of the disk.
func Dir(t testing.TB) string {
	t.Helper()
	base := "/dev/shm"
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "castra-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeTree(dir) })
	return dir
}

// Seed is that of the random trees, printed so that a failure can be seen again:
// CASTRA_TEST_SEED sets it.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("CASTRA_TEST_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("CASTRA_TEST_SEED=%d", seed)
	return seed
}

// Clear removes a tree and what the swapper kept.
func (g *Ground) Clear(t testing.TB, root string) {
	t.Helper()
	g.Forget(root)
	for _, dir := range []string{root, g.Side} {
		g.must(t, removeTree(dir))
	}
	g.must(t, os.Mkdir(g.Side, 0o700))
}

func removeTree(dir string) error {
	root, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(filepath.Base(dir))
}
