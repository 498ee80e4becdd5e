package image

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image/unpack"
)

// RoomError says: an image does not fit on the disk.
type RoomError struct {
	Path   string // a directory of the file system that is too full
	Needed uint64 // bytes; 0: not known, but more than Free
	Free   uint64 // bytes
}

func (e *RoomError) Error() string {
	if e.Needed == 0 {
		return fmt.Sprintf("no room in %s: %s are free, and the image needs more", e.Path, mebibytes(e.Free))
	}
	return fmt.Sprintf("no room in %s: the image needs %s, and %s are free", e.Path, mebibytes(e.Needed), mebibytes(e.Free))
}

// Hint says what to do next.
func (e *RoomError) Hint() string {
	return "make room there (mage prune -images removes images that no VM uses), or set CASTRA_HOME to a directory on another disk"
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }

// withRoom makes a *RoomError of an error that says that the disk is full.
func withRoom(dir string, err error) error {
	var limit *unpack.LimitError
	full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.As(err, &limit) && limit.Room
	free, freeErr := host.FreeDisk(dir)
	if !full || freeErr != nil {
		return err
	}
	return &RoomError{Path: dir, Free: free}
}

// UnsafeError says: another user could change what lies at Path, or it is not
// what Castra put there, so nothing is read or written there.
type UnsafeError struct {
	Path, Problem string
	Fix           string // a shell command
}

func (e *UnsafeError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Problem) }

// Hint is the command that mends it.
func (e *UnsafeError) Hint() string { return e.Fix }

// ExistsError says: something that Castra did not make lies where an image
// should go, and it was left.
type ExistsError struct{ Path, What string }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("place image at %s: %s that Castra did not put there is in the way, and was left", e.Path, e.What)
}

// Hint says what to do next.
func (e *ExistsError) Hint() string {
	return "if you need it, keep it: mv " + quote(e.Path) + " " + quote(e.Path+".mine") + ", and name it as base_image; else remove it"
}

// BusyError says: an image is being made or fetched, so it cannot be removed.
type BusyError struct {
	What string // "" for the small guest
	Lock string // the file that is locked
}

func (e *BusyError) Error() string {
	if e.What == "" {
		return "the small guest is being built (" + e.Lock + " is locked)"
	}
	return fmt.Sprintf("%s is being fetched or checked (%s is locked)", e.What, e.Lock)
}

// Hint says what to do next.
func (e *BusyError) Hint() string { return "try again when the other castra has ended" }

var plain = regexp.MustCompile(`^[A-Za-z0-9/._,:=@%+-]+$`)

// quote makes path one word of a POSIX shell.
func quote(path string) string {
	if plain.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
