package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Load reads, checks and resolves one castra.toml. What is wrong with it comes
// as Faults; a file that cannot be read as the error of the system.
func Load(file string) (*Project, error) {
	file, err := canonical(file)
	if err != nil {
		return nil, err
	}
	data, err := read(file)
	if err != nil {
		return nil, err
	}
	source, err := text(file, data)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if _, err := toml.Decode(source, &m); err != nil {
		return nil, syntaxFault(file, err)
	}
	f := &faults{file: file, lines: index(source)}
	p := &Project{File: file, Dir: filepath.Dir(file), Source: data}
	(&loader{p, f, schema{}}).project(&table{f: f, m: m})
	if err := f.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// canonical is the absolute path of file with the symlinks of its directory
// resolved: a project reached by two paths is one project.
func canonical(file string) (string, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

func syntaxFault(file string, err error) error {
	var at toml.ParseError
	if !errors.As(err, &at) {
		return Faults{{File: file, Problem: err.Error()}}
	}
	problem := at.Message
	if problem == "" { // some errors of the library say it in one piece only
		problem = strings.TrimPrefix(at.Error(), fmt.Sprintf("toml: line %d: ", at.Position.Line))
	}
	return Faults{{File: file, Line: at.Position.Line, Column: at.Position.Col, Key: at.LastKey, Problem: problem, Help: "correct the TOML there"}}
}

// schema is what the version of the file allows.
type schema struct{ single bool }

type loader struct {
	p *Project
	f *faults
	schema
}

func (l *loader) project(t *table) {
	l.version(t)
	t.refuse("broker", "there is no broker any more", "remove the table; VMs need no process beside QEMU")
	project := t.sub("project")
	l.name(project)
	l.p.StateDir = l.stateDir(project)
	project.value("features") // kept for later versions; nothing here depends on it
	project.done()
	l.lifecycle(t.sub("lifecycle"))
	defaults := t.sub("bootstrap")
	base := l.bootstrapDefaults(defaults)
	defaults.done()
	t.value("workflows") // accepted and kept
	vms := t.list("vms")
	if len(vms) == 0 && len(t.f.found) == 0 {
		t.fault("vms", "there is no VM", "add [[vms]] with a name")
	}
	l.vms(vms, base)
	t.done()
}

var versionPattern = regexp.MustCompile(`^([0-9]{1,4})\.([0-9]{1,4})(\.[0-9]{1,4})?$`)

func (l *loader) version(t *table) {
	const help = `write version = "0.2"`
	if _, ok := t.m["version"]; !ok {
		t.fault("version", "it is missing", help)
	}
	l.p.Version = t.str("version", "0.2")
	m := versionPattern.FindStringSubmatch(l.p.Version)
	switch {
	case m == nil:
		t.fault("version", fmt.Sprintf("%q is no version", shorten(l.p.Version)), help)
	case m[1] == "0" && m[2] == "1":
		l.single = true
	case m[1] == "0" && m[2] == "2":
	case m[1] == "0" && m[2] == "0":
		t.fault("version", "there is no schema 0.0", help)
	default:
		l.p.Warnings = append(l.p.Warnings, Error{File: l.f.file, Line: l.f.lines.of("version"), Key: "version",
			Problem: fmt.Sprintf("schema %s is newer than this Castra's 0.2", l.p.Version), Help: "update Castra if something does not work"})
	}
}

func (l *loader) name(t *table) {
	l.p.Name = t.str("name", "")
	if problem := badProjectName(l.p.Name); problem != "" {
		t.fault("name", problem, `write a name such as "shop" under [project]: at most 64 printable characters, without / and \`)
	}
}

func (l *loader) stateDir(t *table) string {
	dir := t.str("state_dir", "")
	if _, ok := t.m["state_dir"]; !ok || dir == "" {
		if ok {
			t.fault("state_dir", "it is empty", `write state_dir = ".castra", or leave it out`)
		}
		return ""
	}
	abs := l.path(t, "state_dir", dir)
	if abs == "" {
		return ""
	}
	if rel, err := filepath.Rel(abs, l.p.Dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		t.fault("state_dir", fmt.Sprintf("%s holds the project itself", abs), `give state a directory of its own: state_dir = ".castra"`)
		return ""
	}
	return abs
}

// path resolves a path against the directory of castra.toml.
func (l *loader) path(t *table, key, path string) string {
	switch {
	case path == "":
		return ""
	case strings.HasPrefix(path, "~"):
		t.fault(key, "~ is not expanded", "write an absolute path, or one relative to "+FileName)
		return ""
	case filepath.IsAbs(path):
		return filepath.Clean(path)
	default:
		return filepath.Join(l.p.Dir, path)
	}
}

const maxSecs = 24 * 60 * 60

func (l *loader) lifecycle(t *table) {
	secs := func(key string, otherwise, least int) time.Duration {
		return time.Duration(t.integer(key, otherwise, least, maxSecs)) * time.Second
	}
	l.p.Lifecycle = Lifecycle{
		Graceful:  secs("graceful_shutdown_wait_secs", 20, 0),
		Terminate: secs("sigterm_wait_secs", 10, 0),
		Kill:      secs("sigkill_wait_secs", 5, 1),
	}
	t.done()
}
