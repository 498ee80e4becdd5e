package castra

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A name given on the command line is no path.
func TestNamesAsArgumentsLeadNowhere(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	precious := filepath.Join(w.home, "precious")
	require.NoError(t, os.MkdirAll(precious, 0o700))
	sentinel := filepath.Join(precious, "sentinel.log")
	require.NoError(t, os.WriteFile(sentinel, []byte("precious"), 0o600))
	p := w.open()
	for _, name := range []string{"../../precious/sentinel", "/etc/passwd", ".", "", "web/0", "-rf", "a\nb", "a\x00b", strings.Repeat("x", 300), "WEB-0"} {
		for verb, err := range map[string]error{
			"exec": p.Exec(t.Context(), name, Command{Line: "true"}),
			"ssh":  p.Shell(t.Context(), name, Shell{Stdin: strings.NewReader("")}),
			"up":   p.Up(t.Context(), UpOptions{VMs: []string{name}}),
			"logs": p.Logs(t.Context(), LogOptions{VM: name}, io.Discard),
		} {
			if name == "" && verb == "logs" {
				continue // which is all of them
			}
			require.ErrorAs(t, err, new(*UnknownVMError), "%s %q", verb, name)
			require.Equal(t, exitNoInput, exitStatus(err))
			require.ErrorContains(t, err, "web-0", "the known ones are named")
		}
		if name != "" {
			require.Error(t, p.Copy(t.Context(), name+":/etc/hostname", filepath.Join(t.TempDir(), "x")), "%q", name)
		}
	}
	require.Equal(t, "precious", string(mustRead(t, sentinel)))
	w.down()
}

// One project reached by several paths is one workspace.
func TestSymlinkedProject(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	link := filepath.Join(filepath.Dir(w.dir), "link")
	require.NoError(t, os.Symlink(w.dir, link))
	require.NoError(t, os.MkdirAll(filepath.Join(w.dir, "sub"), 0o700))
	for _, dir := range []string{link, link + "/", filepath.Join(w.dir, "sub") + "/..", filepath.Join(link, "sub")} {
		o := w.options()
		o.Dir = dir
		require.Equal(t, w.open().StateRoot(), w.openWith(o).StateRoot(), dir)
		require.NoError(t, w.openWith(o).Up(t.Context(), UpOptions{}))
		require.Len(t, w.running(), 1)
	}
	require.Len(t, w.everywhere(Selection{}).Projects, 1)
	o := w.options()
	o.Dir = link
	require.NoError(t, w.openWith(o).Down(t.Context()))
	w.cleanSlate()
}

// Without a home directory, state goes nowhere by accident.
func TestNoHomeDirectory(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	root := filepath.Join(filepath.Dir(w.dir), "state")
	withState := strings.Replace(string(mustRead(t, filepath.Join(w.dir, "castra.toml"))), `name = "scratch"`, `name = "scratch"`+"\nstate_dir = \""+root+`"`, 1)
	for name, home := range map[string]string{"empty": "", "relative": "rel"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", home)
			t.Chdir(w.dir)
			o := w.options()
			o.Home = ""
			before := tree(t, w.dir)
			_, err := Open(o)
			require.Equal(t, exitUsage, exitStatus(err))
			require.Contains(t, hint(err), "CASTRA_HOME")
			_, err = OpenWorkspaces(o, Selection{All: true}, nil)
			require.Equal(t, exitUsage, exitStatus(err))
			require.Equal(t, before, tree(t, w.dir))

			o.Config = w.write("stated.toml", withState)
			require.NoError(t, w.openWith(o).Up(t.Context(), UpOptions{}))
			require.NoError(t, w.openWith(o).Down(t.Context()))
			require.NoError(t, os.Remove(o.Config))
			require.Equal(t, before, tree(t, w.dir))
		})
	}
}

// Looking at all workspaces beside commands that come and go.
func TestStatusBesideUpAndClean(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	shop := w.second("shop")
	shop.up()
	stop := make(chan struct{})
	var looping sync.WaitGroup
	var loopErr error
	looping.Go(func() {
		for loopErr == nil {
			select {
			case <-stop:
				return
			default:
			}
			if loopErr = w.open().Up(w.Context(), UpOptions{}); loopErr == nil {
				loopErr = w.open().Down(w.Context())
			}
			if loopErr == nil {
				loopErr = w.open().Clean(w.Context())
			}
		}
	})
	for range 50 {
		all := w.everywhere(Selection{All: true})
		require.Contains(t, w.seen(all), "shop shop-0 running")
		_, err := all.Ports(t.Context())
		require.NoError(t, err)
	}
	close(stop)
	looping.Wait()
	require.NoError(t, loopErr)
	shop.down()
	w.cleanSlate()
}

// Errors that need no advice: they are a user's own command's, or that of the
// error they hold is given.
var withoutHint = []string{"ExitError", "CommandError", "ExitedError", "ToolError"}

// Every error type that a user may meet says what to do next.
func TestErrorsHaveHints(t *testing.T) {
	found := 0
	for _, dir := range []string{".", "config", "internal/workspace", "internal/qemu", "internal/guest", "internal/image", "internal/image/small", "internal/bootstrap"} {
		methods := map[string][]string{}
		packages, err := parser.ParseDir(token.NewFileSet(), dir, func(info fs.FileInfo) bool { return !strings.HasSuffix(info.Name(), "_test.go") }, 0) //nolint:staticcheck // build tags do not matter here
		require.NoError(t, err)
		for _, pkg := range packages {
			for _, file := range pkg.Files {
				for _, decl := range file.Decls {
					if f, ok := decl.(*ast.FuncDecl); ok && f.Recv != nil {
						receiver := f.Recv.List[0].Type
						if star, ok := receiver.(*ast.StarExpr); ok {
							receiver = star.X
						}
						if name, ok := receiver.(*ast.Ident); ok {
							methods[name.Name] = append(methods[name.Name], f.Name.Name)
						}
					}
				}
			}
		}
		for name, all := range methods {
			if strings.HasSuffix(name, "Error") && ast.IsExported(name) && slices.Contains(all, "Error") && !slices.Contains(withoutHint, name) {
				found++
				require.Contains(t, all, "Hint", "%s.%s", dir, name)
			}
		}
	}
	require.Greater(t, found, 20)
}
