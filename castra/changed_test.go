package castra

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/config"
)

func TestConfigChangedWhileRunning(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	pid := w.status("web-0").PID
	for lines, says := range map[string]string{
		"[[vms.port_forwards]]\nguest = 80":                   "port_forwards: ",
		"[vms.ssh]\nuser = \"admin\"":                         "ssh.user: runs with root, castra.toml says admin",
		"overlay = \"other.qcow2\"":                           "overlay: ",
		"kernel = \"base.qcow2\"\nappend = \"console=ttyS0\"": "append: runs with none, castra.toml says console=ttyS0",
	} {
		w.configure(patient, vm("web", lines))
		err := w.open().Up(t.Context(), UpOptions{})
		require.ErrorAs(t, err, new(*ChangedError), says)
		require.ErrorContains(t, err, says)
		require.Equal(t, exitConfig, exitStatus(err))
		require.NotEmpty(t, hint(err))
	}
	w.configure(patient, strings.Replace(vm("web"), "cpus = 1", "cpus = 4", 1))
	err := w.open().Up(t.Context(), UpOptions{})
	require.ErrorContains(t, err, "cpus: runs with 1, castra.toml says 4")
	require.Equal(t, []int{pid}, w.running(), "it is left alone")
	w.configure(patient, vm("web"))
	w.up()
	require.Equal(t, []int{pid}, w.running())
	w.down()
	w.cleanSlate()
}

// A change of one VM keeps `up` from starting the others: all is checked
// before anything is done.
func TestChangeStartsNothing(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up("web")
	w.configure(patient, strings.Replace(vm("web"), "cpus = 1", "cpus = 4", 1), vm("db"))
	require.ErrorAs(t, w.open().Up(t.Context(), UpOptions{}), new(*ChangedError))
	require.Equal(t, []string{"web-0 running", "db-0 stopped"}, w.states())
	w.down()
	w.cleanSlate()
}

func TestVMRemovedFromConfig(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("db"))
	w.up()
	w.configure(patient, vm("web"))
	require.Equal(t, []string{"web-0 running", "db-0 running"}, w.states())
	require.Contains(t, w.status("db-0").Problem, "castra.toml does not name it any more")
	out, err := w.exec("db", "printf %s $CASTRA_FAKE_GUEST", "")
	require.NoError(t, err)
	require.Equal(t, "db-0", out)
	w.up()
	require.Len(t, w.running(), 2)
	w.down()
	w.cleanSlate()
}

// Failure bank 8: castra.toml edited into something unreadable, or removed,
// while VMs run.
func TestConfigBrokenWhileRunning(t *testing.T) {
	for name, damage := range map[string]func(w *world, file string){
		"syntax":     func(w *world, _ string) { w.write("castra.toml", "[[vms") },
		"validation": func(w *world, _ string) { w.configure(patient, vm("web", "memory_mb = 1")) },
		"renamed": func(w *world, _ string) {
			w.write("castra.toml", "version = \"0.2\"\n[project]\nname = \"other\"\nunknown = 1\n")
		},
		"removed": func(w *world, file string) { require.NoError(w, os.Remove(file)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, hastyPowerOff, vm("web"))
			w.personality("ignore-powerdown")
			w.up()
			file := filepath.Join(w.dir, "castra.toml")
			o := w.options()
			o.Config = file // a file that is gone cannot be searched for
			root := w.layout().Root
			damage(w, file)

			recorded := func() *Project {
				p, fault, err := OpenRecorded(o)
				require.NoError(t, err)
				require.Error(t, fault)
				require.Equal(t, root, p.StateRoot())
				p.Reporter = w.events
				return p
			}
			s, err := recorded().Status(t.Context())
			require.NoError(t, err)
			require.Len(t, s.VMs, 1)
			require.Equal(t, "running", s.VMs[0].State)
			ports, err := recorded().Ports(t.Context())
			require.NoError(t, err)
			require.Len(t, ports.Ports, 1)
			var out bytes.Buffer
			require.NoError(t, recorded().Exec(t.Context(), "web", Command{Line: "echo hello", Stdout: &out}))
			require.Equal(t, "hello\n", out.String())

			// What only castra.toml can tell is refused, with what is wrong with it.
			_, fault, _ := OpenRecorded(o)
			require.EqualError(t, recorded().Up(t.Context(), UpOptions{}), fault.Error())
			_, err = recorded().Plan(t.Context(), UpOptions{})
			require.EqualError(t, err, fault.Error())

			w.events.forget()
			require.NoError(t, recorded().Down(t.Context()))
			require.Contains(t, w.events.story("web-0"), "vm.cooperative.timed_out", "the waits on record hold")
			require.Empty(t, w.running())
			require.NoError(t, recorded().Clean(t.Context()))
		})
	}
}

// With nothing on record a broken castra.toml is just that.
func TestConfigBrokenBeforeUp(t *testing.T) {
	w := newWorld(t, patient)
	w.write("castra.toml", "[[vms")
	_, _, err := OpenRecorded(w.options())
	require.ErrorAs(t, err, new(config.Faults))
	require.Equal(t, exitConfig, exitStatus(err))
	o := w.options()
	o.Dir = t.TempDir()
	_, _, err = OpenRecorded(o)
	require.ErrorAs(t, err, new(*config.NotFoundError))
	require.Equal(t, exitNoInput, exitStatus(err))
}

// State kept beside castra.toml is found there without reading it.
func TestConfigBrokenBesideItsState(t *testing.T) {
	w := newWorld(t, patient)
	good := "version = \"0.2\"\n[project]\nname = \"scratch\"\nstate_dir = \".castra\"\n" + vm("web")
	w.write("castra.toml", good)
	w.up()
	w.write("castra.toml", good+"[[vms")
	p, fault, err := OpenRecorded(w.options())
	require.NoError(t, err)
	require.Error(t, fault)
	require.NoError(t, p.Down(t.Context()))
	w.write("castra.toml", good)
	w.cleanSlate()
}

// A project that is given another name keeps its workspace: its VMs are seen,
// left alone by up, and taken down.
func TestProjectRenamedWhileRunning(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	root, pids := w.open().StateRoot(), w.running()
	text, err := os.ReadFile(filepath.Join(w.dir, "castra.toml"))
	require.NoError(t, err)
	w.write("castra.toml", strings.Replace(string(text), `name = "scratch"`, `name = "renamed"`, 1))
	require.Equal(t, root, w.open().StateRoot())
	require.Equal(t, []string{"web-0 running"}, w.states())
	w.up()
	require.Equal(t, pids, w.running())
	w.down()
	w.cleanSlate()
}

// B8: the copy of a project with its workspace sees its VMs stopped, and does
// nothing to those of the original; a moved one takes its VMs down.
func TestCopiedAndMovedWorkspace(t *testing.T) {
	for name, overlay := range map[string]string{"in the workspace": "", "elsewhere": "overlay = \"disks/o.qcow2\""} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web", overlay))
			text, err := os.ReadFile(filepath.Join(w.dir, "castra.toml"))
			require.NoError(t, err)
			w.write("castra.toml", strings.Replace(string(text), "[lifecycle]", "state_dir = \".castra\"\n[lifecycle]", 1))
			w.up()
			disk := w.session().VMs["web-0"].Overlay.Path
			original := w.dir

			w.dir += "-copy"
			require.NoError(t, os.CopyFS(w.dir, regularFiles{os.DirFS(original)}))
			require.NoError(t, os.Chmod(filepath.Join(w.dir, ".castra"), 0o700))
			require.NotContains(t, w.states()[0], "running")
			_ = w.open().Down(t.Context()) // it may say that it leaves the original's disk
			require.FileExists(t, disk)
			w.dir = original
			require.Equal(t, []string{"web-0 running"}, w.states())

			moved := original + "-moved"
			require.NoError(t, os.Rename(original, moved))
			w.dir = moved
			require.Equal(t, []string{"web-0 running"}, w.states())
			require.NoError(t, w.open().Down(t.Context()))
			require.Empty(t, w.running())
			if overlay == "" {
				w.cleanSlate()
			}
		})
	}
}

// regularFiles is a tree without its sockets, which cannot be copied.
type regularFiles struct{ fs.FS }

func (r regularFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Type() == fs.ModeSocket }), err
}
