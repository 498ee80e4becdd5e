package warm

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// errInUse says: somebody else holds the lock.
var errInUse = errors.New("in use")

// MissError says: there is no template of these ingredients, and why.
type MissError struct{ Reason string }

func (e *MissError) Error() string { return "no warm template: " + e.Reason }

// Hint says what to do next.
func (e *MissError) Hint() string { return "nothing: the VM boots cold" }

// BadError says: the template is there and is not what was saved.
type BadError struct{ Key, Problem string }

func (e *BadError) Error() string { return fmt.Sprintf("warm template %s: %s", e.Key, e.Problem) }

// Hint says what to do next.
func (e *BadError) Hint() string {
	return "the VM boots cold; mage prune -templates removes what is damaged"
}

// UnsafeError says: another user could read or change what lies at Path, so
// it is not used.
type UnsafeError struct {
	Path, Problem string
	Fix           string // a shell command
}

func (e *UnsafeError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Problem) }

// Hint is the command that mends it.
func (e *UnsafeError) Hint() string { return e.Fix }

// Error says that the store could not be worked on.
type Error struct {
	Op, Path string
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s: %s", e.Op, e.Path, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Hint is that of the cause where it has one.
func (e *Error) Hint() string {
	var inner interface{ Hint() string }
	switch {
	case errors.As(e.Err, &inner):
		return inner.Hint()
	case errors.Is(e.Err, unix.ENOSPC), errors.Is(e.Err, unix.EDQUOT):
		return "make room there (mage prune -templates), or set CASTRA_HOME to a directory on another disk"
	}
	return "check that you may write there; all of it is cache, and CASTRA_WARM=0 does without"
}

// failed gives err the operation and the path. Nil stays nil, and an error
// that callers look for stays as it is.
func failed(op, path string, err error) error {
	switch err.(type) { //nolint:errorlint // what is wrapped already says where
	case nil, *MissError, *BadError, *UnsafeError, *Error:
		return err
	}
	return &Error{op, path, err}
}

var plain = regexp.MustCompile(`^[A-Za-z0-9/._,:=@%+-]+$`)

// quote makes path one word of a POSIX shell.
func quote(path string) string {
	if plain.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
