package config

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// FileName is the name of a project's configuration.
const FileName = "castra.toml"

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

// Faults are all faults of a file, by line.
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

// faults collects them for one file.
type faults struct {
	file  string
	lines lines
	found Faults
}

// add files a fault of the key at path.
func (f *faults) add(path, problem, help string) {
	f.addAt(f.lines.of(path), path, problem, help)
}

func (f *faults) addAt(line int, path, problem, help string) {
	f.found = append(f.found, &Error{File: f.file, Line: line, Key: path, Problem: problem, Help: help})
}

// err is nil without faults.
func (f *faults) err() error {
	if len(f.found) == 0 {
		return nil
	}
	slices.SortStableFunc(f.found, func(a, b *Error) int { return a.Line - b.Line })
	return f.found
}
