package castra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"castra.example/castra/castra/internal/workspace"
	scaffold "castra.example/castra/template"
)

// Scaffolding says where Scaffold writes a new project. The zero value is the
// working directory, named after it.
type Scaffolding struct {
	Dir   string
	Name  string
	Force bool // replace files that are there
	Home  string
	Out   io.Writer // hears of each file; nil is silence
}

// Scaffold writes castra.toml, a magefile, a bootstrap script and .gitignore
// into a directory. Files that are there already are kept, unless Force.
func Scaffold(ctx context.Context, s Scaffolding) error {
	dir, err := filepath.Abs(s.Dir)
	if err != nil {
		return err
	}
	if s.Name == "" {
		s.Name = filepath.Base(dir)
	}
	if strings.ContainsAny(s.Name, `"\`) || strings.ContainsFunc(s.Name, unicode.IsControl) || !utf8.ValidString(s.Name) {
		return &usageError{fmt.Sprintf("project name %q: quotes, backslashes, line breaks and other control characters are not allowed", s.Name), "give another one: mage init -name=shop"}
	}
	if s.Out == nil {
		s.Out = io.Discard
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	files, err := fs.Sub(scaffold.Project, "project")
	if err != nil {
		return err
	}
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		return s.file(files, dir, name)
	})
	if err != nil {
		return err
	}
	return s.next(dir)
}

// file writes one file of the template.
func (s Scaffolding) file(files fs.FS, dir, name string) error {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	to := filepath.FromSlash(strings.TrimSuffix(name, ".tmpl"))
	if strings.HasSuffix(name, ".tmpl") {
		data = bytes.ReplaceAll(data, []byte("{{.Name}}"), []byte(s.Name))
	}
	path := filepath.Join(dir, strings.ReplaceAll(to, "dot_", "."))
	mode := fs.FileMode(0o666)
	if strings.HasSuffix(name, ".sh") {
		mode = 0o777
	}
	flag := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if s.Force {
		flag = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.OpenFile(path, flag, mode)
	if errors.Is(err, fs.ErrExist) {
		fmt.Fprintf(s.Out, "kept     %s\n", path)
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "written  %s\n", path)
	return nil
}

// next tells where state will be, and what to run.
func (s Scaffolding) next(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	home := s.Home
	if home == "" {
		home = "~/.castra"
	}
	_, err = fmt.Fprintf(s.Out, `
State of this project's VMs: %s
  (or beside castra.toml, with state_dir = ".castra" under [project])
Next: go mod tidy, mage up, mage status, mage down
`, workspace.DefaultRoot(home, workspace.ID(s.Name, real)))
	return err
}
