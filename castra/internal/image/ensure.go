package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image/digest"
	"castra.example/castra/castra/internal/image/fetch"
	"castra.example/castra/castra/internal/image/unpack"
)

// Report is who hears of the work on an image. Nil functions are silence.
type Report struct {
	// Progress gets the phase, which begins with "downloading", "verifying" or
	// "unpacking", and its bytes; total 0: not known.
	Progress func(phase string, done, total int64)
	// Waiting is told once, when another process works on the image.
	Waiting func(what string)
}

func (r Report) phase(name string) func(done, total int64) {
	if r.Progress == nil {
		return nil
	}
	return func(done, total int64) { r.Progress(name, done, total) }
}

// job is one Ensure at work, which holds the lock of its slot.
type job struct {
	*slot
	source Source
	report Report
}

// Ensure gives the disk of an image, which it downloads and unpacks where it is
// not under home, an absolute path. The disk is verified: its digest was taken
// since the file last changed, and since this computer booted, or is taken now.
// One that does not match is removed and downloaded again, once. Processes that
// want the same image download it once; what a killed one has left is taken up.
// Errors are *RoomError, *FormatError, *UnsafeError, those of the packages
// fetch and unpack, of the file system, or the cause of ctx.
func Ensure(ctx context.Context, home string, s Source, report Report) (Disk, error) {
	d, err := ensure(ctx, home, s, report)
	if err != nil {
		return Disk{}, fmt.Errorf("image %s: %w", s.label(), err)
	}
	return d, nil
}

func ensure(ctx context.Context, home string, s Source, report Report) (Disk, error) {
	key, err := s.key()
	if err != nil {
		return Disk{}, err
	}
	if sl, err := findSlot(home, s); err == nil {
		d, ok := sl.trusted(s.Digest)
		sl.close()
		if ok {
			return d, ctx.Err()
		}
	}
	st, err := openStore(home, true)
	if err != nil {
		return Disk{}, err
	}
	defer st.close()
	release, err := st.lock(ctx, key, func() {
		if report.Waiting != nil {
			report.Waiting("another castra that is fetching or checking " + s.label())
		}
	})
	if err != nil {
		return Disk{}, err
	}
	defer release()
	sl, err := st.slot(key)
	if err != nil {
		return Disk{}, err
	}
	defer sl.close()
	d, err := (&job{sl, s, report}).run(ctx)
	return d, withRoom(sl.root.Name(), err)
}

func (j *job) run(ctx context.Context) (Disk, error) {
	if d, ok := j.trusted(j.source.Digest); ok {
		return d, nil
	}
	d, ok, err := j.recheck(ctx)
	if ok || err != nil {
		return d, err
	}
	phase := "downloading"
	if j.exists() != "" {
		phase = "downloading again, since the one here is damaged"
	}
	if err := j.discard(); err != nil {
		return Disk{}, err
	}
	return j.download(ctx, phase)
}

// rereads bounds how often a disk is read that changes while it is: another
// workspace that makes or removes its link to it changes its ctime too.
const rereads = 10

var errChanged = errors.New("it changed while it was read")

// recheck takes the digest of the disk that is there. Ok is false where there
// is none, or another than there should be.
func (j *job) recheck(ctx context.Context) (d Disk, ok bool, err error) {
	for range rereads {
		if d, ok, err = j.read(ctx); !errors.Is(err, errChanged) {
			break
		}
	}
	return d, ok, err
}

func (j *job) read(ctx context.Context) (d Disk, ok bool, err error) {
	f, known := j.facts(j.source.Digest)
	name, want, size := f.Disk.Name, j.source.Digest, j.source.Size
	if known {
		size = f.Disk.Bytes
		if want, err = digest.Parse(f.Disk.Digest); err != nil {
			return Disk{}, false, err
		}
	} else if name = j.exists(); name == "" {
		return Disk{}, false, nil
	}
	file, err := openOwn(j.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return Disk{}, false, nil
	}
	if err != nil {
		return Disk{}, false, err
	}
	defer file.Close()
	if st, err := file.Stat(); err == nil && st.Mode().Perm() != readOnly {
		_ = file.Chmod(readOnly) // it is a precaution
	}
	before, err := host.Identify(file)
	if err != nil || size != 0 && before.Bytes != size {
		return Disk{}, false, err
	}
	begun := time.Now()
	got, err := digest.File(ctx, j.path(name), want.Algorithm, j.report.phase("verifying"))
	if err != nil || got != want {
		return Disk{}, false, err
	}
	took := time.Since(begun)
	// What was read may have been in memory alone: a disk that cannot take it would lose it, and leave the identity as it is.
	if err := file.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EROFS) {
		return Disk{}, false, err
	}
	if err := j.unchanged(file, name, before); err != nil {
		return Disk{}, false, err
	}
	if !known {
		f = facts{Format: factsFormat, URL: withoutSecrets(j.source.URL), Digest: want.String()}
	}
	if err := j.describe(&f, file, want); err != nil {
		return Disk{}, false, err
	}
	f.Checked = nil
	if before.Settled(begun) {
		f.Checked = &checked{before, host.BootID()}
	}
	if known && f.Checked == nil {
		// Nothing new to write down: the next one takes the digest again.
	} else if err := j.write(f); err != nil {
		return Disk{}, false, err
	}
	d = j.disk(f)
	d.Hashed = took
	return d, true, nil
}

// unchanged tells that the name still leads to the open file, as it was.
func (j *job) unchanged(f *os.File, name string, before host.Identity) error {
	after, err := host.Identify(f)
	if err != nil {
		return err
	}
	open, err := f.Stat()
	if err != nil {
		return err
	}
	now, err := j.root.Lstat(name)
	if err == nil && (after != before || !os.SameFile(open, now)) {
		err = fmt.Errorf("%s: %w", f.Name(), errChanged)
	}
	return err
}

// describe fills in what is known of a disk with this digest by looking at it;
// *FormatError where it may not be booted.
func (j *job) describe(f *facts, disk *os.File, sum digest.Digest) error {
	info, err := inspect(disk, withoutSecrets(j.source.URL))
	if err != nil {
		return err
	}
	st, err := disk.Stat()
	if err != nil {
		return err
	}
	f.Disk = diskFacts{"disk." + info.Format, info.Format, sum.String(), st.Size(), info.VirtualSize}
	return nil
}

// download fetches, unpacks and installs the disk.
func (j *job) download(ctx context.Context, phase string) (Disk, error) {
	address, err := j.source.address()
	if err != nil {
		return Disk{}, err
	}
	if err := j.room(); err != nil {
		return Disk{}, err
	}
	err = fetch.Get(ctx, fetch.Request{
		URL: address, Digest: j.source.Digest, Size: j.source.Size, Part: j.path(downloadName),
		AllowPlain: j.source.Mirror != "", Progress: j.report.phase(phase),
	})
	if err != nil {
		return Disk{}, err
	}
	d, err := j.install(ctx)
	if refused(err) {
		// It is what was asked for, and will be the same next time.
		err = errors.Join(err, j.removeDownload())
	}
	d.Downloaded = err == nil
	return d, err
}

// refused tells that it is the image that is at fault.
func refused(err error) bool {
	var format *FormatError
	var packed *unpack.Error
	var limit *unpack.LimitError
	return errors.As(err, &format) || errors.As(err, &packed) || errors.As(err, &limit) && !limit.Room
}

// room is a *RoomError where the download cannot fit on the disk.
func (j *job) room() error {
	missing := j.source.Size - j.size(downloadName)
	free, err := host.FreeDisk(j.root.Name())
	if err == nil && missing > 0 && uint64(missing) > free {
		err = &RoomError{j.root.Name(), uint64(missing), free}
	}
	return err
}

func (j *job) removeDownload() error {
	return errors.Join(removeName(j.root, downloadName), removeName(j.root, downloadName+".json"))
}

// install makes the verified download the disk of its slot.
func (j *job) install(ctx context.Context) (Disk, error) {
	file, err := openOwn(j.root, downloadName)
	if err != nil {
		return Disk{}, err
	}
	defer file.Close()
	head := make([]byte, 16)
	if _, err := file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return Disk{}, err
	}
	f := facts{Format: factsFormat, URL: withoutSecrets(j.source.URL), Digest: j.source.Digest.String(), Packed: unpack.Detect(head)}
	if f.Packed == unpack.None {
		return j.commit(f, file, downloadName, j.source.Digest)
	}
	d, err := j.unpack(ctx, f, file)
	return d, errors.Join(err, removeName(j.root, unpackName))
}

func (j *job) unpack(ctx context.Context, f facts, packed *os.File) (Disk, error) {
	if err := removeName(j.root, unpackName); err != nil { // what a killed one left
		return Disk{}, err
	}
	out, err := j.root.OpenFile(unpackName, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return Disk{}, err
	}
	defer out.Close()
	free, err := host.FreeDisk(j.root.Name())
	if err != nil {
		return Disk{}, err
	}
	r, err := unpack.File(ctx, packed, out, unpack.Limits{Room: int64(min(free, 1<<62))}, j.report.phase("unpacking"))
	if err != nil {
		return Disk{}, err
	}
	return j.commit(f, out, unpackName, digest.Digest{Algorithm: digest.SHA512, Hex: r.SHA512})
}

// commit gives a whole file, called name, its final name. The facts come first,
// and without an identity: whatever a crash leaves between the two, or a power
// cut of a file that was not on disk yet, is hashed before it is used.
func (j *job) commit(f facts, file *os.File, name string, sum digest.Digest) (Disk, error) {
	if err := j.describe(&f, file, sum); err != nil {
		return Disk{}, err
	}
	if err := j.write(f); err != nil {
		return Disk{}, err
	}
	if err := j.root.Rename(name, f.Disk.Name); err != nil {
		return Disk{}, err
	}
	if err := file.Chmod(readOnly); err != nil { // not before: what a crash leaves of a download is opened to write
		return Disk{}, err
	}
	if err := syncRoot(j.root); err != nil {
		return Disk{}, err
	}
	return j.disk(f), j.removeDownload()
}
