package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// NotFoundError says: there is no castra.toml in a directory or above it.
type NotFoundError struct{ Dir string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no %s in %s or above it", FileName, e.Dir)
}

// Unwrap makes it an fs.ErrNotExist.
func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }

// Hint says what to do next.
func (e *NotFoundError) Hint() string {
	return "go to the project's directory, set CASTRA_CONFIG, or make one with mage init"
}

// Error is one fault of a file. Line and Column count from 1; 0 is unknown.
type Error struct {
	File    string
	Line    int
	Column  int
	Key     string // vms[1].port_forwards[0].guest
	Problem string
	Help    string // what to write instead
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ":%d", e.Column)
		}
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Hint says what to do next.
func (e *Error) Hint() string { return e.Help }

// Faults are all faults of castra.toml, by line, and then those of the
// bootstrap.toml files beside its scripts.
type Faults []*Error

func (f Faults) Error() string {
	var lines []string
	for _, e := range f {
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each fault.
func (f Faults) Unwrap() []error {
	var all []error
	for _, e := range f {
		all = append(all, e)
	}
	return all
}

// maxFaults bounds how many faults of one project are told.
const maxFaults = 100

// faults collects them, for all files of a project.
type faults struct {
	found Faults
	more  int // beyond maxFaults
}

// add files a fault of the key at path.
func (s *source) add(path, problem, help string) {
	s.take(&Error{File: s.file, Line: s.lines.of(path), Key: path, Problem: problem, Help: help})
}

func (f *faults) take(e *Error) {
	if f.full() {
		f.more++
		return
	}
	f.found = append(f.found, e)
}

// has tells that the key at path is at fault already.
func (s *source) has(path string) bool {
	return slices.ContainsFunc(s.found, func(e *Error) bool { return e.File == s.file && e.Key == path })
}

func (f *faults) full() bool { return len(f.found) == maxFaults }

// err gives them by line, those of the file first before those of others; nil
// where there are none.
func (f *faults) err(first string) error {
	if len(f.found) == 0 {
		return nil
	}
	slices.SortStableFunc(f.found, func(a, b *Error) int {
		switch {
		case a.File != b.File && a.File == first:
			return -1
		case a.File != b.File && b.File == first:
			return 1
		}
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	if f.more > 0 {
		f.found = append(f.found, &Error{File: first, Problem: fmt.Sprintf("%d more faults", f.more), Help: "correct those above first"})
	}
	return f.found
}
