package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
)

// Load reads, checks and resolves one castra.toml, given by its absolute path,
// and the bootstrap.toml beside each script. What is wrong with them comes as
// Faults; a file that cannot be read as the error of the system.
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
	data, t, err := parse(file, dir, &faults{})
	if err != nil {
		return nil, err
	}
	l := newLoader(&Project{File: file, Dir: dir, Source: data}, t.f)
	return l.load(t)
}

// source is one file of a project.
type source struct {
	*faults
	file   string
	dir    string // that its paths are relative to
	lines  lines
	places map[string]string // of keys, for suggestions
}

// parse decodes a file. What is no TOML, or costs too much to decode, comes as
// Faults.
func parse(file, dir string, f *faults) (data []byte, t *table, err error) {
	data, err = read(file)
	if err != nil {
		return nil, nil, err
	}
	content, err := text(file, data)
	if err != nil {
		return nil, nil, err
	}
	found, over := index(content)
	if over.line > 0 {
		return nil, nil, Faults{{File: file, Line: over.line, Problem: over.problem, Help: "no key of Castra needs that: remove it"}}
	}
	var m map[string]any
	if _, err := toml.Decode(content, &m); err != nil {
		return nil, nil, syntaxFault(file, err, found)
	}
	return data, &table{f: &source{faults: f, file: file, dir: dir, lines: found, places: places}, m: m}, nil
}

func syntaxFault(file string, err error, found lines) error {
	f := &Error{File: file, Problem: err.Error(), Help: "correct the TOML there"}
	var at toml.ParseError
	if errors.As(err, &at) {
		f.Line, f.Column = at.Position.Line, at.Position.Col
		f.Problem = strings.NewReplacer("for int64", "for a TOML integer", "for float64", "for a TOML float").Replace(strings.TrimSuffix(at.Message, "."))
	}
	if found.secret(f.Line) && quotesText(f.Problem) {
		f.Problem, f.Help = "a value that is no TOML", "write each value of env as a string in quotes"
	}
	if r := []rune(f.Problem); len(r) > maxProblem {
		f.Problem = string(r[:maxProblem]) + "..."
	}
	return Faults{f}
}

// maxProblem is how much of a message of the library is told: it may quote all of a long line.
const maxProblem = 200

// quotesText tells that a message of the library may hold what the file does, and not names of keys alone.
func quotesText(message string) bool {
	harmless := strings.HasPrefix(message, "unexpected EOF") || strings.HasPrefix(message, "Key '")
	return !harmless && strings.ContainsAny(message, "'\"0123456789")
}

// loader turns the tables of a file into a Project.
type loader struct {
	p        *Project
	f        *source           // castra.toml
	recorded bool              // it is a snapshot: what it names need not exist
	single   bool              // schema 0.1: no replicas, no index in names
	places   []place           // of each of p.VMs
	scripts  map[string]bool   // default scripts that have been looked at
	beside   map[string]beside // by the directory of the script
}

func newLoader(p *Project, f *source) *loader {
	return &loader{p: p, f: f, scripts: map[string]bool{}, beside: map[string]beside{}}
}

func (l *loader) load(t *table) (*Project, error) {
	l.project(t)
	if err := l.f.err(l.f.file); err != nil {
		return nil, err
	}
	return l.p, nil
}

// place is where the settings of a VM stand.
type place struct {
	table    string // vms[1]
	instance *table // its [[vms.instances]]; nil where there is none
}

// owner is the path of the table that gives the VM this key.
func (p place) owner(key string) string {
	if p.instance != nil && p.instance.has(key) {
		return p.instance.path
	}
	return p.table
}
