package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
)

// Load reads, checks and resolves one castra.toml, given by its absolute path.
// What is wrong with it comes as Faults; a file that cannot be read as the
// error of the system.
func Load(file string) (*Project, error) {
	if !filepath.IsAbs(file) {
		return nil, fmt.Errorf("%s: not an absolute path", file)
	}
	// A project that is reached by two paths is one project.
	dir, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(file)))
	if err != nil {
		return nil, err
	}
	file = filepath.Join(dir, filepath.Base(file))
	data, err := read(file)
	if err != nil {
		return nil, err
	}
	source, err := text(file, data)
	if err != nil {
		return nil, err
	}
	found, over := index(source)
	if over.line > 0 {
		return nil, Faults{{File: file, Line: over.line, Problem: over.problem, Help: "no key of Castra needs that: remove it"}}
	}
	var m map[string]any
	if _, err := toml.Decode(source, &m); err != nil {
		return nil, syntaxFault(file, err)
	}
	l := &loader{p: &Project{File: file, Dir: dir, Source: data}, f: &faults{file: file, lines: found}, scripts: map[string]bool{}}
	l.project(&table{f: l.f, m: m})
	if err := l.f.err(); err != nil {
		return nil, err
	}
	return l.p, nil
}

func syntaxFault(file string, err error) error {
	f := &Error{File: file, Problem: err.Error(), Help: "correct the TOML there"}
	var at toml.ParseError
	if errors.As(err, &at) {
		f.Line, f.Column = at.Position.Line, at.Position.Col
		f.Problem = strings.NewReplacer("for int64", "for a TOML integer", "for float64", "for a TOML float").Replace(strings.TrimSuffix(at.Message, "."))
	}
	return Faults{f}
}

// loader turns the tables of a file into a Project.
type loader struct {
	p       *Project
	f       *faults
	single  bool            // schema 0.1: no replicas, no index in names
	paths   []string        // of the table of each of p.VMs: vms[1]
	scripts map[string]bool // default scripts that have been looked at
}
