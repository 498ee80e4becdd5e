package castra

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/workspace"
)

func scaffolded(t *testing.T, s Scaffolding) (string, error) {
	t.Helper()
	var out bytes.Buffer
	s.Out = &out
	err := Scaffold(t.Context(), s)
	return out.String(), err
}

func TestScaffold(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	dir := filepath.Join(root, "my shop")
	out, err := scaffolded(t, Scaffolding{Dir: dir, Home: "/castra-home"})
	require.NoError(t, err)
	files := []string{
		".gitignore", "bootstrap", "bootstrap/web", "bootstrap/web/payload", "bootstrap/web/payload/index.html",
		"bootstrap/web/run.sh", "castra.toml", "magefile.go",
	}
	require.Equal(t, files, tree(t, dir))
	for _, file := range files {
		if isFile(filepath.Join(dir, file)) {
			require.Contains(t, out, "written  "+filepath.Join(dir, file)+"\n")
		}
	}
	st, err := os.Stat(filepath.Join(dir, "bootstrap/web/run.sh"))
	require.NoError(t, err)
	require.NotZero(t, st.Mode()&0o100, "a script can be run")

	p, err := config.Load(filepath.Join(dir, "castra.toml"))
	require.NoError(t, err)
	require.Equal(t, "my shop", p.Name)
	require.Empty(t, p.Warnings)
	require.Len(t, p.VMs, 1)
	require.FileExists(t, p.VMs[0].Bootstrap.Script)
	require.DirExists(t, p.VMs[0].Bootstrap.Payload)
	require.Contains(t, out, workspace.DefaultRoot("/castra-home", workspace.ID("my shop", dir)), "the root that will be used")
	require.Contains(t, out, `state_dir = ".castra"`)
}

func TestScaffoldKeepsFiles(t *testing.T) {
	dir := t.TempDir()
	magefile := filepath.Join(dir, "magefile.go")
	require.NoError(t, os.WriteFile(magefile, []byte("package main // mine, and longer than the template's by far: "+strings.Repeat("x", 1000)), 0o600))
	out, err := scaffolded(t, Scaffolding{Dir: dir, Name: "shop"})
	require.NoError(t, err)
	require.Contains(t, out, "kept     "+magefile)
	require.Contains(t, string(mustRead(t, magefile)), "// mine")
	before := snapshot(t, dir)
	out, err = scaffolded(t, Scaffolding{Dir: dir, Name: "other"})
	require.NoError(t, err)
	require.NotContains(t, out, "written")
	require.Equal(t, before, snapshot(t, dir), "a second run changes nothing")

	out, err = scaffolded(t, Scaffolding{Dir: dir, Name: "other", Force: true})
	require.NoError(t, err)
	require.NotContains(t, out, "kept")
	require.NotContains(t, string(mustRead(t, magefile)), "mine")
	require.NotContains(t, string(mustRead(t, magefile)), "xxx", "nothing of the longer file is left")
	p, err := config.Load(filepath.Join(dir, "castra.toml"))
	require.NoError(t, err)
	require.Equal(t, "other", p.Name)
}

// Every name is refused before anything is written, or makes a castra.toml
// that loads and gives it back.
func TestScaffoldNames(t *testing.T) {
	for name, good := range map[string]bool{
		"shop": true, "Größe 7": true, "a.b": true, "{{.Name}}": true, "it's": true, "#1": true,
		`a"b`: false, `a\b`: false, "a\nb": false, "a\rb": false, "a\x01b": false, "a\x7fb": false, "a\xffb": false, "a\x00b": false,
	} {
		dir := filepath.Join(t.TempDir(), "new")
		_, err := scaffolded(t, Scaffolding{Dir: dir, Name: name})
		if !good {
			require.Error(t, err, "%q", name)
			require.Equal(t, exitUsage, exitStatus(err))
			require.NoDirExists(t, dir)
			continue
		}
		require.NoError(t, err, "%q", name)
		p, err := config.Load(filepath.Join(dir, "castra.toml"))
		require.NoError(t, err, "%q", name)
		require.Equal(t, name, p.Name)
	}
}

func TestScaffoldIntoAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := scaffolded(t, Scaffolding{Dir: filepath.Join(file, "project")})
	require.ErrorContains(t, err, file)
}
