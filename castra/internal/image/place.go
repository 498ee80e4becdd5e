package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image/digest"
)

// placed is what is written down beside an image that Place put somewhere, so
// that a later Place knows it for its own.
type placed struct {
	Digest   string        `json:"digest"` // of the disk
	Link     bool          `json:"link"`
	Identity host.Identity `json:"identity"`
	Born     int64         `json:"born_ns"` // 0: not known
}

// ours tells that the file is the one that p tells of. A link keeps its inode
// and its birth, whatever becomes of its contents: they are the store's.
func (p placed) ours(f *os.File) bool {
	id, err := host.Identify(f)
	if err != nil {
		return false
	}
	if p.Link && id.Device == p.Identity.Device && id.Inode == p.Identity.Inode {
		if p.Born != 0 {
			return p.Born == host.Born(f)
		}
		return id.Bytes == p.Identity.Bytes && id.MtimeNsec == p.Identity.MtimeNsec
	}
	return id == p.Identity
}

// placing is one Place at work.
type placing struct {
	slot     *slot
	store    *store
	facts    facts
	disk     *os.File
	dir      *os.Root
	name     string
	released func()
}

// Place makes d, which Ensure gave, also the file at path: as a hard link, else
// as a reflink, else as a copy. Beside it come a sidecar with its SHA-512 (path
// with the ending ".sha512"; none where that is not known) and a hidden record.
// An older image that Place put there is replaced. Anything else is left: with
// the same contents it is taken, else it is an *ExistsError. The directory of
// path is there, and the caller's alone to change.
func Place(ctx context.Context, d Disk, path string) error {
	p, err := openPlacing(ctx, d, path)
	if err != nil {
		return fmt.Errorf("place image at %s: %w", path, err)
	}
	defer p.close()
	err = p.run(ctx)
	var exists *ExistsError
	if err == nil || errors.As(err, &exists) {
		return err
	}
	return fmt.Errorf("place image at %s: %w", path, withRoom(p.dir.Name(), err))
}

func openPlacing(ctx context.Context, d Disk, path string) (*placing, error) {
	in := filepath.Dir(d.Path)
	key, images := filepath.Base(in), filepath.Dir(in)
	if !filepath.IsAbs(d.Path) || !keyName.MatchString(key) || filepath.Base(images) != imagesDir {
		return nil, fmt.Errorf("%s is not an image of the store: %w", d.Path, fs.ErrInvalid)
	}
	p := &placing{name: filepath.Base(path)}
	err := p.open(ctx, d, filepath.Dir(images), key, filepath.Dir(path))
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *placing) open(ctx context.Context, d Disk, home, key, dir string) (err error) {
	if p.dir, err = os.OpenRoot(dir); err != nil {
		return err
	}
	if p.store, err = openStore(home, false); err != nil {
		return err
	}
	if p.slot, err = p.store.slot(key); err != nil {
		return err
	}
	p.slot.close()
	if p.released, err = p.store.lock(ctx, key, nil); err != nil {
		return err
	}
	if p.slot, err = p.store.slot(key); err != nil {
		return err
	}
	var ok bool
	if p.facts, ok = p.slot.facts(d.Digest); !ok || p.slot.path(p.facts.Disk.Name) != d.Path {
		return fmt.Errorf("%s is not there any more: %w", d.Path, fs.ErrNotExist)
	}
	p.disk, err = openOwn(p.slot.root, p.facts.Disk.Name)
	return err
}

func (p *placing) close() {
	if p.disk != nil {
		p.disk.Close()
	}
	if p.slot != nil {
		p.slot.close()
	}
	if p.released != nil {
		p.released()
	}
	if p.store != nil {
		p.store.close()
	}
	if p.dir != nil {
		p.dir.Close()
	}
}

func (p *placing) run(ctx context.Context) error {
	there, err := p.dir.Lstat(p.name)
	if errors.Is(err, fs.ErrNotExist) {
		return p.put(ctx)
	}
	if err != nil {
		return err
	}
	if !there.Mode().IsRegular() {
		return &ExistsError{p.path(p.name), "something that is no file and"}
	}
	f, err := p.dir.OpenFile(p.name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.over(ctx, f)
}

// over decides about a file that is there.
func (p *placing) over(ctx context.Context, f *os.File) error {
	there, err := f.Stat()
	if err != nil {
		return err
	}
	mine, err := p.disk.Stat()
	if err != nil {
		return err
	}
	was, known := p.record()
	ours := known && was.ours(f)
	switch {
	case os.SameFile(there, mine):
		return p.sidecar()
	case ours && !was.Link && was.Digest == p.facts.Disk.Digest:
		return p.sidecar()
	case ours || p.store.links(there):
		if err := p.forget(); err != nil {
			return err
		}
		return p.put(ctx)
	case there.Size() == mine.Size():
		same, err := p.same(ctx, there)
		if err != nil {
			return err
		}
		if same {
			return errors.Join(p.remember(f, false), p.sidecar())
		}
	}
	return &ExistsError{p.path(p.name), "a file"}
}

// same compares the contents of a file of the right size.
func (p *placing) same(ctx context.Context, there fs.FileInfo) (bool, error) {
	want, err := digest.Parse(p.facts.Disk.Digest)
	if err != nil {
		return false, err
	}
	got, err := digest.File(ctx, p.path(p.name), want.Algorithm, nil)
	if err != nil {
		return false, err
	}
	now, err := p.dir.Lstat(p.name)
	return err == nil && os.SameFile(there, now) && got == want, err
}

// links tells that a file is also the disk of an image of the store.
func (s *store) links(file fs.FileInfo) bool {
	entries, _ := fs.ReadDir(s.root.FS(), ".")
	for _, e := range entries {
		if !keyName.MatchString(e.Name()) {
			continue
		}
		for _, name := range diskNames {
			if st, err := s.root.Lstat(filepath.Join(e.Name(), name)); err == nil && os.SameFile(st, file) {
				return true
			}
		}
	}
	return false
}

// put puts the disk at its place, where nothing is or what is ours.
func (p *placing) put(ctx context.Context) error {
	beside := besideName(p.name)
	if err := removeName(p.dir, beside); err != nil { // what a killed one left
		return err
	}
	before := p.facts.Checked.holds(p.disk)
	linked := os.Link(p.slot.path(p.facts.Disk.Name), p.path(beside)) == nil
	if !linked {
		if err := p.copy(ctx, beside); err != nil {
			return errors.Join(err, removeName(p.dir, beside))
		}
	}
	f, err := p.dir.OpenFile(beside, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.dir.Rename(beside, p.name); err != nil {
		return err
	}
	if linked && before {
		err = p.relinked()
	}
	return errors.Join(err, p.remember(f, linked), p.sidecar())
}

// relinked notes that the disk's ctime has changed only because it has one more
// name: had it been written to, its mtime would have changed too.
func (p *placing) relinked() error {
	now, err := host.Identify(p.disk)
	if err != nil {
		return err
	}
	was := p.facts.Checked.Identity
	was.CtimeNsec = now.CtimeNsec
	if was != now {
		return nil
	}
	p.facts.Checked.Identity = now
	return p.slot.write(p.facts)
}

// copy makes a file of its own with the disk's contents, and leaves its holes.
func (p *placing) copy(ctx context.Context, name string) error {
	f, err := p.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if reflink(f, p.disk) != nil {
		if err := p.copyData(ctx, f); err != nil {
			return err
		}
	}
	return errors.Join(f.Chmod(readOnly), f.Sync())
}

func (p *placing) copyData(ctx context.Context, to *os.File) error {
	st, err := p.disk.Stat()
	if err != nil {
		return err
	}
	free, err := host.FreeDisk(p.dir.Name())
	if need := uint64(host.DiskUsage(st)); err == nil && need > free {
		return &RoomError{p.dir.Name(), need, free}
	}
	if err := host.CopySparse(ctx, p.disk, to); err != nil {
		return err
	}
	return to.Truncate(st.Size())
}

func (p *placing) path(name string) string { return filepath.Join(p.dir.Name(), name) }

func (p *placing) recordName() string { return "." + p.name + ".castra.json" }

func (p *placing) sidecarName() string { return sidecarPath(p.name) }

func (p *placing) record() (placed, bool) {
	data, err := readSmall(p.dir, p.recordName())
	var was placed
	return was, err == nil && json.Unmarshal(data, &was) == nil
}

func (p *placing) remember(f *os.File, linked bool) error {
	id, err := host.Identify(f)
	if err != nil {
		return err
	}
	data, err := json.Marshal(placed{p.facts.Disk.Digest, linked, id, host.Born(f)})
	if err != nil {
		return err
	}
	return replaceFile(p.dir, p.recordName(), append(data, '\n'), 0o600)
}

// forget removes the sidecar of an image that is to be replaced, so that it
// never stands beside another one.
func (p *placing) forget() error {
	st, err := p.dir.Lstat(p.sidecarName())
	if err != nil || !st.Mode().IsRegular() {
		return nil //nolint:nilerr // sidecar says so, if it matters
	}
	return removeName(p.dir, p.sidecarName())
}

// sidecar writes the file that sha512sum -c takes. One that says the same in
// another spelling is left.
func (p *placing) sidecar() error {
	sum, err := digest.Parse(p.facts.Disk.Digest)
	if err != nil || sum.Algorithm != digest.SHA512 {
		return err
	}
	name := p.sidecarName()
	if st, err := p.dir.Lstat(name); err == nil && !st.Mode().IsRegular() {
		return &ExistsError{p.path(name), "something that is no file and"}
	}
	if data, err := readSmall(p.dir, name); err == nil {
		if says, err := digest.Parse(string(data)); err == nil && says == sum {
			return nil
		}
	}
	return replaceFile(p.dir, name, []byte(sum.Hex+"  "+p.name+"\n"), 0o600)
}
