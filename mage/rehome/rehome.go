// Package rehome gives the module another path, for who forks or publishes it.
package rehome

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	modFile   = "go.mod"
	gitLimit  = time.Minute
	stagedEnd = ".rehome-"
)

var moduleLine = regexp.MustCompile(`(?m)^module[ \t]+"?([^"\s]+)"?`)

// Module rewrites the path of the module in dir, wherever it stands alone or
// begins a longer one: in go.mod, imports, strings, and prose. It goes through
// the files that git knows or would add, or through all where there is no git,
// and leaves binary files and symlinks alone. Either all files are rewritten or, on an
// error, none; a module that has the path already is left as it is. A path
// that no module can have is a *PathError.
func Module(ctx context.Context, dir, path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(dir, modFile))
	if err != nil {
		return err
	}
	m := moduleLine.FindSubmatch(mod)
	if m == nil {
		return fmt.Errorf("%s: no module line", filepath.Join(dir, modFile))
	}
	old := string(m[1])
	if old == path {
		return nil
	}
	files, err := list(ctx, dir)
	if err != nil {
		return err
	}
	// Last, so that a run that was killed can be run again.
	files = append(slices.DeleteFunc(files, func(f string) bool { return f == modFile }), modFile)
	var changes []*change
	for _, file := range files {
		c, err := stage(ctx, filepath.Join(dir, file), old, path)
		if err != nil {
			return errors.Join(err, discard(changes))
		}
		if c != nil {
			changes = append(changes, c)
		}
	}
	return commit(changes)
}

// list names the files to go through, relative to dir.
func list(ctx context.Context, dir string) ([]string, error) {
	if _, err := os.Lstat(filepath.Join(dir, ".git")); errors.Is(err, fs.ErrNotExist) {
		return walk(dir)
	}
	ctx, cancel := context.WithTimeout(ctx, gitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the files of %s: git ls-files: %w: %s", dir, err, strings.TrimSpace(stderr.String()))
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 }), nil
}

func walk(dir string) ([]string, error) {
	var files []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// change is a file with its next content, written beside it.
type change struct {
	path   string
	before []byte
	mode   fs.FileMode
	staged string
}

// stage writes the next content of a file; nil where there is nothing to change.
func stage(ctx context.Context, path, from, to string) (*change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
		return nil, nil // git knows of it, and it was removed; or a symlink or submodule
	}
	if err != nil {
		return nil, err
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	after := replace(before, from, to)
	if bytes.Equal(before, after) || bytes.IndexByte(before, 0) >= 0 {
		return nil, nil
	}
	if filepath.Ext(path) == ".go" {
		after = formatted(before, after)
	}
	c := &change{path: path, before: before, mode: st.Mode().Perm()}
	c.staged, err = write(path, after, c.mode)
	return c, err
}

// formatted sorts and aligns again what the new length has put out of order,
// in a file that was in order.
func formatted(before, after []byte) []byte {
	if was, err := format.Source(before); err != nil || !bytes.Equal(was, before) {
		return after
	}
	if now, err := format.Source(after); err == nil {
		return now
	}
	return after
}

// write makes a file beside path and gives its name.
func write(path string, content []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+stagedEnd)
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// commit puts all changes in place; after a failure, what was there before.
func commit(changes []*change) error {
	for i, c := range changes {
		if err := os.Rename(c.staged, c.path); err != nil {
			return errors.Join(err, undo(changes[:i]), discard(changes[i:]))
		}
	}
	return nil
}

func undo(changes []*change) error {
	var errs []error
	for _, c := range changes {
		staged, err := write(c.path, c.before, c.mode)
		if err == nil {
			err = os.Rename(staged, c.path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func discard(changes []*change) error {
	var errs []error
	for _, c := range changes {
		errs = append(errs, os.Remove(c.staged))
	}
	return errors.Join(errs...)
}

// replace rewrites every from that is a whole path or the beginning of one.
func replace(text []byte, from, to string) []byte {
	var out []byte
	rest := 0
	for {
		at := bytes.Index(text[rest:], []byte(from))
		if at < 0 {
			return append(out, text[rest:]...)
		}
		at += rest
		end := at + len(from)
		out = append(out, text[rest:at]...)
		if begins(text[:at]) && ends(text[end:]) {
			out = append(out, to...)
		} else {
			out = append(out, from...)
		}
		rest = end
	}
}

var (
	joinsBefore = regexp.MustCompile(`[A-Za-z0-9._~/-]$`)
	joinsAfter  = regexp.MustCompile(`^([A-Za-z0-9_~-]|\.+[A-Za-z0-9_~-])`)
)

// begins tells that what stands before a path is no part of it; the scheme of
// an address is none.
func begins(before []byte) bool {
	last := before[max(0, len(before)-3):]
	return string(last) == "://" || !joinsBefore.Match(last)
}

// ends tells that what follows belongs to no longer name; a full stop does not.
func ends(after []byte) bool { return !joinsAfter.Match(after[:min(len(after), 4)]) }
