package rehome

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	from = "old.example/mod"
	to   = "github.com/someone-else/renamed"
)

func TestCheckPath(t *testing.T) {
	for _, path := range []string{
		"example.org/x", "example.org/x/castra", "github.com/You/castra.go", "a-b.example.org/~me/x_y/v2", "example.org", "example.org/x/v10", "example.org/v1/x",
	} {
		require.NoError(t, checkPath(path), path)
	}
	for path, says := range map[string]string{
		"":                      "domain name",
		"castra":                "domain name",
		"./castra":              "domain name",
		"/example.org/x":        "domain name",
		"Example.org/x":         "domain name",
		"-example.org/x":        "domain name",
		"example..org/x":        "domain name",
		"https://example.org/x": "domain name",
		"git@example.org:x":     "domain name",
		"example.org/x/":        `""`,
		"example.org//x":        `""`,
		"example.org/../x":      `".."`,
		"example.org/.x":        `".x"`,
		"example.org/x.":        `"x."`,
		"example.org/x y":       `"x y"`,
		"example.org/x\ny":      "cannot be a part",
		"example.org/x\n":       "cannot be a part",
		"example.org/ü":         "cannot be a part",
		"example.org/a+b":       "cannot be a part",
		"example.org/x@latest":  "cannot be a part",
		"example.org/x\"":       "cannot be a part",
		"example.org/con/x":     `"con"`,
		"example.org/Aux.go":    `"Aux.go"`,
		"example.org/x/v1":      "/v2",
		"example.org/x/v0":      "/v2",
		"example.org/x/v02":     "/v2",
	} {
		err := checkPath(path)
		var pe *PathError
		require.ErrorAs(t, err, &pe, path)
		require.ErrorContains(t, err, says, path)
		require.NotEmpty(t, pe.Hint())
	}
}

func TestReplaceAtBoundaries(t *testing.T) {
	for text, want := range map[string]string{
		`import "old.example/mod/a"`:           `import "` + to + `/a"`,
		`"old.example/mod"`:                    `"` + to + `"`,
		"old.example/mod":                      to,
		"go get old.example/mod@latest":        "go get " + to + "@latest",
		"See old.example/mod.":                 "See " + to + ".",
		"See old.example/mod. Then...":         "See " + to + ". Then...",
		"(*old.example/mod/a.Client).Close":    "(*" + to + "/a.Client).Close",
		"https://old.example/mod, old.example": "https://" + to + ", old.example",
		"old.example/mod old.example/mod":      to + " " + to,
		"old.example/module":                   "old.example/module",
		"old.example/mod-x old.example/mod.go": "old.example/mod-x old.example/mod.go",
		"old.example/mod_x old.example/mod2":   "old.example/mod_x old.example/mod2",
		"very.old.example/mod":                 "very.old.example/mod",
		"not-old.example/mod":                  "not-old.example/mod",
		"/src/old.example/mod":                 "/src/old.example/mod",
		"old.example/mod/v2":                   to + "/v2",
		"":                                     "",
	} {
		require.Equal(t, want, string(replace([]byte(text), from, to)), text)
	}
}

// What was rewritten and is rewritten back is what it was, where the new path
// did not stand before.
func TestReplaceThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{from, "/", ".", "-", "a", " ", `"`, "\n", "://", "é"})).Draw(t, "parts")
		text := strings.Join(parts, "")
		there := replace([]byte(text), from, to)
		require.Equal(t, text, string(replace(there, to, from)))
	})
}

func TestModule(t *testing.T) {
	dir := module(t, map[string]string{
		"go.mod":          "// old.example/mod is fine\nmodule old.example/mod\n\ngo 1.26\n",
		"a.go":            "package a\n\nimport (\n\t_ \"hello.example/x\"\n\t_ \"old.example/mod/b\"\n)\n\nvar m = map[string]int{\n\t\"old.example/mod\": 1,\n\t\"x\":               2,\n}\n",
		"loose.go":        "package   a // old.example/mod\n",
		"sub/t.tmpl":      "{{old.example/mod}}\r\n",
		"sub/binary":      "\x00old.example/mod",
		"sub/unconcerned": "old.example/modern",
		"run.sh":          "echo old.example/mod",
	})
	require.NoError(t, os.Chmod(filepath.Join(dir, "run.sh"), 0o755))
	require.NoError(t, os.Symlink("sub/t.tmpl", filepath.Join(dir, "link")))
	before := contents(t, dir)
	require.NoError(t, Module(t.Context(), dir, to))
	after := contents(t, dir)
	require.Equal(t, map[string]string{
		"go.mod":          "// " + to + " is fine\nmodule " + to + "\n\ngo 1.26\n",
		"a.go":            "package a\n\nimport (\n\t_ \"" + to + "/b\"\n\t_ \"hello.example/x\"\n)\n\nvar m = map[string]int{\n\t\"" + to + "\": 1,\n\t\"x\":                               2,\n}\n",
		"loose.go":        "package   a // " + to + "\n",
		"sub/t.tmpl":      "{{" + to + "}}\r\n",
		"sub/binary":      "\x00old.example/mod",
		"sub/unconcerned": "old.example/modern",
		"run.sh":          "echo " + to,
		"link":            "-> sub/t.tmpl",
	}, after)
	st, err := os.Stat(filepath.Join(dir, "run.sh"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o755), st.Mode())

	require.NoError(t, Module(t.Context(), dir, to), "once more")
	require.Equal(t, after, contents(t, dir))
	require.NoError(t, Module(t.Context(), dir, from))
	require.Equal(t, before, contents(t, dir))
}

// What git ignores is not the repository's, what it would add is.
func TestModuleInGit(t *testing.T) {
	dir := module(t, map[string]string{
		"go.mod": "module old.example/mod\n", ".gitignore": "cache\n", "cache/a": from, "tracked é.txt": from, "new": from, "gone": from,
	})
	for _, args := range [][]string{{"init", "-q"}, {"add", "tracked é.txt", "gone", "go.mod"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	require.NoError(t, os.Remove(filepath.Join(dir, "gone")))
	require.NoError(t, Module(t.Context(), dir, to))
	got := contents(t, dir)
	require.Equal(t, from, got["cache/a"])
	require.Equal(t, to, got["tracked é.txt"])
	require.Equal(t, to, got["new"])
	require.Equal(t, "module "+to+"\n", got["go.mod"])
}

func TestAllOrNothing(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name, path string
		ctx        context.Context
		files      map[string]string
		says       string
	}{
		{"no such path", "nowhere", t.Context(), nil, "domain name"},
		{"cancelled", to, cancelled, nil, "context canceled"},
		{"no go.mod", to, t.Context(), map[string]string{"a": from}, "go.mod"},
		{"no module line", to, t.Context(), map[string]string{"go.mod": "go 1.26\n"}, "no module line"},
		{"a broken repository", to, t.Context(), map[string]string{".git": "nonsense", "go.mod": "module old.example/mod\n"}, "git ls-files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.files == nil {
				c.files = map[string]string{"go.mod": "module old.example/mod\n", "a": from, "b": from}
			}
			dir := module(t, c.files)
			before := contents(t, dir)
			require.ErrorContains(t, Module(c.ctx, dir, c.path), c.says)
			require.Equal(t, before, contents(t, dir))
		})
	}
}

// A rename that fails takes those before it back.
func TestCommitTakesBack(t *testing.T) {
	dir := module(t, map[string]string{"a": from, "b": from, "c": from})
	before := contents(t, dir)
	var changes []*change
	for _, name := range []string{"a", "b", "c"} {
		c, err := stage(t.Context(), filepath.Join(dir, name), from, to)
		require.NoError(t, err)
		changes = append(changes, c)
	}
	changes[1].path = dir // a file cannot take a directory's name
	require.Error(t, commit(changes))
	require.Equal(t, before, contents(t, dir))
}

// This repository under another path builds, is vetted, and holds the old one
// nowhere; back again, it is byte for byte what it was.
func TestThisRepository(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and vets everything under another path")
	}
	dir := t.TempDir()
	files, err := list(t.Context(), filepath.Join("..", ".."))
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join("..", "..", file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		put(t, filepath.Join(dir, file), string(content))
	}
	before := contents(t, dir)
	old := moduleLine.FindStringSubmatch(before["go.mod"])[1]
	next := path.Join("rehomed.example", "x", "castra") // written nowhere, or it would be rewritten on the way back

	require.NoError(t, Module(t.Context(), dir, next))
	for file, content := range contents(t, dir) {
		require.False(t, strings.Contains(content, old) && !strings.Contains(content, "\x00"), file)
	}
	for _, args := range [][]string{{"build", "./..."}, {"vet", "./..."}, {"vet", "-tags=mage", "."}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "go %v: %s", args, out)
	}
	require.NoError(t, Module(t.Context(), dir, old))
	after := contents(t, dir)
	for file, content := range before {
		require.Equal(t, content, after[file], file)
	}
	require.Len(t, after, len(before))
}

// module writes files into a new directory.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		put(t, filepath.Join(dir, name), content)
	}
	return dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// contents are all files below dir, and where its symlinks lead.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir():
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			all[filepath.ToSlash(name)] = "-> " + target
			return err
		}
		content, err := os.ReadFile(path)
		all[filepath.ToSlash(name)] = string(content)
		return err
	}))
	return all
}
