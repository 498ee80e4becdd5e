package castra

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/magefile/mage/parse"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	require.Equal(t, string(mustRead(t, file)), got)
}

// sources are the package's files as mage sees them.
func sources(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("*.go")
	require.NoError(t, err)
	return slices.DeleteFunc(all, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}

// Whatever has the shape of a target becomes one in every project that
// imports the package, so the set is closed.
func TestTargetSet(t *testing.T) {
	info, err := parse.Package(".", sources(t), false)
	require.NoError(t, err)
	var names []string
	for _, f := range info.Funcs {
		require.Empty(t, f.Receiver, "no namespaces")
		require.True(t, f.IsError, f.Name)
		require.True(t, f.IsContext, f.Name)
		names = append(names, f.Name)
	}
	require.ElementsMatch(t, []string{"Up", "Down", "Clean", "Status", "Ports", "Plan", "Logs", "Bus", "SSH", "Exec", "Copy", "Within", "Prune", "Images", "Init", "Doctor"}, names)
	require.Nil(t, info.DefaultFunc)
	require.Empty(t, info.Aliases)
}

// A target that others depend on takes nothing but a context: mg.Deps and
// Default cannot give more. Every flag tells its default.
func TestTargetArguments(t *testing.T) {
	info, err := parse.Package(".", sources(t), false)
	require.NoError(t, err)
	for _, f := range info.Funcs {
		if slices.Contains([]string{"Up", "Down", "Clean"}, f.Name) {
			require.Empty(t, f.Args, f.Name)
		}
		for _, arg := range f.OptionalArgs() {
			require.Regexp(t, `^\S.* \(default: .+\)$`, arg.Comment, "%s -%s", f.Name, arg.Name)
		}
	}
}

var firstSentence = regexp.MustCompile(`^(.*?\.)(\s|$)`)

// What `mage -l` and `mage -h` show of a target, and how little it does.
func TestTargetDocs(t *testing.T) {
	const bodyLines = 8
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "targets.go", nil, parser.ParseComments)
	require.NoError(t, err)
	targets := 0
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || !f.Name.IsExported() || f.Name.Name == "Environment" { // which is for Go code
			continue
		}
		targets++
		sentence := firstSentence.FindStringSubmatch(strings.ReplaceAll(f.Doc.Text(), "\n", " "))
		require.NotNil(t, sentence, f.Name.Name)
		require.True(t, strings.HasPrefix(sentence[1], f.Name.Name+" "), sentence[1])
		require.LessOrEqual(t, len(sentence[1]), 60, sentence[1])
		require.Greater(t, len(strings.TrimSpace(f.Doc.Text())), len(sentence[1]), "%s: what changes on disk?", f.Name.Name)
		lines := fset.Position(f.Body.Rbrace).Line - fset.Position(f.Body.Lbrace).Line - 1
		require.LessOrEqual(t, lines, bodyLines, f.Name.Name)
	}
	require.Equal(t, 16, targets, "all targets are in targets.go")
}
