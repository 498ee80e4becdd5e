package castra

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/soak"
)

// oddNames are of directories that the project, its state and its images lie in.
var oddNames = []string{
	"comma,debug-threads=on", "new\nline", `quote's "both"`, "größe 日本 \U0001f4e6",
	"equals=on,,x", "percent %s %n%%", "-name x", "space  and tab\t", "dollar $HOME `id` $(id)", "back\\slash\\n", "json:{\"driver\":\"null\"}",
	"nbd:unix:x;rm&|<>#*?[a]{b}!~", "a\u202eb\u0085\u2028c", "file:fd:1", strings.Repeat("long ", 40),
}

// odd moves the world into a directory of that name.
func (w *world) odd(name string) {
	w.Helper()
	root := filepath.Join(filepath.Dir(w.dir), name)
	require.NoError(w, os.Mkdir(root, 0o700))
	project := filepath.Join(root, "project")
	require.NoError(w, os.Rename(w.dir, project))
	w.dir, w.home, w.base = project, filepath.Join(root, "home"), filepath.Join(project, "base.qcow2")
}

// E2: a directory is whatever it is called, and no part of its name becomes an option: the VM runs, its bootstrap
// too, and nothing of them is left.
func TestOddPathsSoak(t *testing.T) {
	ran := 0
	for _, name := range oddNames[:soak.N(3, len(oddNames))] {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient)
			w.odd(name)
			said := filepath.Join(w.dir, "said")
			w.write("bootstrap/web/run.sh", "#!/bin/sh\necho \"$WHERE\" > "+word(said)+"\n")
			w.configure(patient, vm("web", "[vms.bootstrap]", fmt.Sprintf("remote_dir = %q", filepath.Join(t.TempDir(), "guest")), `env = { WHERE = "a,b=%s" }`))
			w.up()
			require.Equal(t, []string{"web-0 running"}, w.states())
			require.Len(t, w.running(), 1)
			require.Equal(t, "a,b=%s\n", string(mustRead(t, said)))
			require.FileExists(t, w.layout().SerialLog("web-0"))
			w.down()
			w.cleanSlate()
			require.NoError(t, w.open().Clean(t.Context()))
			require.ElementsMatch(t, []string{"home", "project"}, children(t, filepath.Dir(w.dir)), "nothing was made beside")
			ran++
		})
	}
	soak.AtLeast(t, "E2", "odd workspace paths that run Up and Down", 12, float64(ran))
}

func children(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// What QEMU cannot be told of is refused by name before anything is started, and not with a status of QEMU's.
func TestPathThatIsNoUTF8(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.odd("stray \xff\xfe byte")
	err := w.open().Up(t.Context(), UpOptions{})
	require.ErrorAs(t, err, new(*qemu.PathError))
	require.ErrorContains(t, err, `stray \xff\xfe byte`)
	require.Contains(t, explain(err), "CASTRA_HOME")
	_, err = w.open().Plan(t.Context(), UpOptions{})
	require.ErrorAs(t, err, new(*qemu.PathError))
	w.cleanSlate()
}
