package config

import (
	"path/filepath"
	"strings"
	"unicode"
)

// Synthesize makes up the project of a directory, given by its absolute path,
// that has no castra.toml: named like the directory, with one VM vm-0, which
// boots from baseImage, a path that may be relative to the directory, or else
// from the small image. It has the script bootstrap/vm/run.sh if there is one.
// Errors are Faults of that, and those of the system where there is no such
// directory.
func Synthesize(dir, baseImage string) (*Project, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, FileName)
	f := &source{faults: &faults{}, file: file, dir: dir, lines: lines{"vms": 0}} // what is made up stands on no line
	t := &table{f: f, m: map[string]any{
		"version": "0.2",
		"project": map[string]any{"name": validName(filepath.Base(dir))},
		"vms":     []any{map[string]any{"name": "vm", "image": "small"}},
	}}
	p, err := newLoader(&Project{File: file, Dir: dir, Synthetic: true}, f).load(t)
	if err != nil || baseImage == "" {
		return p, err
	}
	if !filepath.IsAbs(baseImage) {
		baseImage = filepath.Join(dir, baseImage)
	}
	p.VMs[0].Image, p.VMs[0].BaseImage = "", filepath.Clean(baseImage)
	return p, nil
}

// validName makes a project's name of a directory's.
func validName(base string) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || !unicode.IsPrint(r) {
			return '-'
		}
		return r
	}, base)
	runes := []rune(strings.TrimSpace(name))
	name = strings.TrimSpace(string(runes[:min(len(runes), 64)]))
	if name == "" || name == "-" {
		return "project"
	}
	return name
}
