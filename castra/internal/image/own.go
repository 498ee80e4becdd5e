package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image/digest"
	"castra.example/castra/castra/internal/image/fetch"
)

// FetchError says: an image could not be fetched.
type FetchError = fetch.Error

// MismatchError says: a file is another than its digest names.
type MismatchError = digest.MismatchError

// URLSource is an image of the user's: an https URL, and its digest as people write it.
func URLSource(address, checksum string) (Source, error) {
	d, err := digest.Parse(checksum)
	if err != nil {
		return Source{}, fmt.Errorf("checksum of %s: %w", withoutSecrets(address), err)
	}
	return Source{URL: address, Digest: d}, nil
}

// Title is what people are told of an image: its name, or that of its file.
func (s Source) Title() string { return s.label() }

// Verify compares the file at path with a digest, and reads all of it. Sum is the digest as Castra writes it, and bytes the file's size. A
// file that differs is a *digest.MismatchError.
func Verify(ctx context.Context, path, checksum string, report Report) (sum string, bytes int64, err error) {
	want, err := digest.Parse(checksum)
	if err != nil {
		return "", 0, fmt.Errorf("checksum of %s: %w", path, err)
	}
	real, err := filepath.EvalSymlinks(path) // digest.File follows none
	if err != nil {
		return "", 0, err
	}
	progress := report.phase("verifying")
	got, err := digest.File(ctx, real, want.Algorithm, func(done, total int64) {
		bytes = total
		if progress != nil {
			progress(done, total)
		}
	})
	if err != nil {
		return "", 0, err
	}
	return got.String(), bytes, want.Check(path, got)
}

// SidecarError says: the file beside an image tells no digest, so that the image is not verified.
type SidecarError struct {
	Path string
	Err  error
}

func (e *SidecarError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }
func (e *SidecarError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *SidecarError) Hint() string {
	return "write the image's SHA-512 into it, as sha512sum prints it, or remove image and sidecar to have the default image fetched"
}

// Sidecar reads the digest, "sha512:…", that stands beside the image at path, in the file with the ending .sha512. Errors are
// fs.ErrNotExist where one of the two is not there, and *SidecarError.
func Sidecar(path string) (string, error) {
	if _, err := os.Lstat(path); err != nil {
		return "", err
	}
	name := sidecarPath(path)
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err != nil {
		return "", &SidecarError{name, err}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return "", &SidecarError{name, err}
	}
	d, err := digest.Parse(string(text))
	if err == nil && d.Algorithm != digest.SHA512 {
		err = errors.New("not a SHA-512")
	}
	if err != nil {
		return "", &SidecarError{name, err}
	}
	return d.String(), nil
}

func sidecarPath(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + ".sha512"
}

// UnverifiedError says: nobody knows what the file at the default image's place is.
type UnverifiedError struct{ Path, Name string }

func (e *UnverifiedError) Error() string {
	return fmt.Sprintf("%s is not %s, and has no digest beside it", e.Path, e.Name)
}

// Hint says what to do next.
func (e *UnverifiedError) Hint() string {
	return "write its SHA-512 into " + sidecarPath(e.Path) + ", or name it as base_image, or remove it to have the default image fetched"
}

// Adopt takes the file at path into the store, where it is that image and not packed, so that nothing need be fetched. Any other file is an
// *UnverifiedError.
func Adopt(ctx context.Context, home string, s Source, path string, report Report) error {
	got, err := digest.File(ctx, path, s.Digest.Algorithm, report.phase("verifying"))
	if err != nil {
		return err
	}
	if got != s.Digest {
		return &UnverifiedError{path, s.label()}
	}
	info, err := Inspect(path)
	if err != nil {
		return err
	}
	key, err := s.key()
	if err != nil {
		return err
	}
	st, err := openStore(home, true)
	if err != nil {
		return err
	}
	defer st.close()
	release, err := st.lock(ctx, key, nil)
	if err != nil {
		return err
	}
	defer release()
	sl, err := st.slot(key)
	if err != nil {
		return err
	}
	defer sl.close()
	if sl.exists() != "" {
		return nil
	}
	return withRoom(sl.root.Name(), sl.adopt(ctx, path, "disk."+info.Format))
}

// adopt copies the file, which is the user's, and gives it the disk's name alone: without facts, the next one to want it takes its digest.
func (s *slot) adopt(ctx context.Context, path, name string) error {
	from, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := removeName(s.root, unpackName); err != nil { // what a killed one left
		return err
	}
	to, err := s.root.OpenFile(unpackName, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	st, err := from.Stat()
	if err == nil {
		err = errors.Join(host.CopySparse(ctx, from, to), to.Truncate(st.Size()))
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return errors.Join(err, removeName(s.root, unpackName))
	}
	return s.root.Rename(unpackName, name)
}

// Facts are what is recorded of a downloaded image: where it is from, and the digest it was fetched by. Both are "" where that is not known.
func (s Stored) Facts() (address, sum string) {
	root, err := os.OpenRoot(s.Path)
	if err != nil {
		return "", ""
	}
	defer root.Close()
	var f facts
	data, err := readSmall(root, factsName)
	if err != nil || json.Unmarshal(data, &f) != nil {
		return "", ""
	}
	return f.URL, f.Digest
}
