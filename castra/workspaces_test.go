package castra

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/workspace"
)

// second is another project beside the world's, of the same home, with its
// state in the repository. It has one VM, called name.
func (w *world) second(name string) *world {
	w.Helper()
	other := *w
	other.dir = filepath.Join(filepath.Dir(w.dir), name)
	require.NoError(w, os.Mkdir(other.dir, 0o700))
	other.configureInRepo(name)
	return &other
}

func (w *world) configureInRepo(name string) {
	w.write("castra.toml", "version = \"0.2\"\n[project]\nname = \""+name+"\"\nstate_dir = \".castra\"\n[lifecycle]\n"+patient+"\n"+
		strings.ReplaceAll(vm(name), "base.qcow2", w.base))
}

// everywhere selects from a directory without castra.toml.
func (w *world) everywhere(s Selection) *Workspaces {
	w.Helper()
	o := w.options()
	o.Dir = w.TempDir()
	all, err := OpenWorkspaces(o, s, w.events)
	require.NoError(w, err)
	return all
}

// seen is what a global status shows: "scratch web-0 running".
func (w *world) seen(all *Workspaces) []string {
	w.Helper()
	report, err := all.Status(w.Context())
	require.NoError(w, err)
	var seen []string
	for _, s := range report.Workspaces {
		require.NotEmpty(w, s.Workspace)
		for _, vm := range s.VMs {
			seen = append(seen, s.Project+" "+vm.Name+" "+vm.State)
		}
	}
	return seen
}

func TestAllWorkspaces(t *testing.T) {
	w := newWorld(t, patient, vm("web", "[[vms.port_forwards]]", "guest = 80"))
	shop := w.second("shop")
	require.Empty(t, w.everywhere(Selection{}).Projects, "nothing was ever made")
	require.NoError(t, w.everywhere(Selection{}).Down(t.Context(), w.events))

	w.up()
	shop.up()
	all := w.everywhere(Selection{})
	require.False(t, all.One)
	require.ElementsMatch(t, []string{"scratch web-0 running", "shop shop-0 running"}, w.seen(all))
	report, err := all.Status(t.Context())
	require.NoError(t, err)
	var text strings.Builder
	require.NoError(t, report.write(&text))
	for _, p := range []*world{w, shop} {
		require.Contains(t, text.String(), "workspace "+p.open().id+" (")
	}
	raw, err := json.Marshal(report)
	require.NoError(t, err)
	var decoded struct {
		Workspaces []ProjectStatus `json:"workspaces"`
		Broken     []any           `json:"broken"`
	}
	require.NoError(t, json.Unmarshal(raw, &decoded))
	require.Len(t, decoded.Workspaces, 2)

	ports, err := all.Ports(t.Context())
	require.NoError(t, err)
	require.Len(t, ports.Workspaces, 2)
	text.Reset()
	require.NoError(t, ports.write(&text, PortsView{Active: true, Verbose: true}))
	require.Contains(t, text.String(), "80/tcp")
	require.Contains(t, text.String(), "on record")
	own, err := w.open().Ports(t.Context())
	require.NoError(t, err)
	require.Equal(t, "castra.toml:"+strconv.Itoa(lineOf(w, "[[vms.port_forwards]]")), own.Ports[0].Declared)
	require.Empty(t, own.Ports[1].Declared, "the one to SSH is Castra's")

	_, err = all.Single()
	require.Equal(t, exitUsage, exitStatus(err), "which of the two is meant?")
	require.Contains(t, hint(err), "CASTRA_WORKSPACE")

	require.NoError(t, all.Down(t.Context(), w.events))
	require.Empty(t, w.running())
	w.cleanSlate()
	shop.cleanSlate()
	require.Empty(t, w.everywhere(Selection{}).Projects, "nothing is active")
	require.Len(t, w.everywhere(Selection{All: true}).Projects, 2, "and both are still there")
}

func TestOneWorkspaceByID(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	shop := w.second("shop")
	w.up()
	shop.up()
	for _, key := range []string{shop.open().id, shop.open().id[:6], shop.open().root} {
		one := w.everywhere(Selection{Workspace: key})
		require.True(t, one.One)
		require.Equal(t, []string{"shop shop-0 running"}, w.seen(one), key)
		report, err := one.Status(t.Context())
		require.NoError(t, err)
		raw, err := json.Marshal(report)
		require.NoError(t, err)
		var s ProjectStatus
		require.NoError(t, json.Unmarshal(raw, &s))
		require.Equal(t, shop.open().root, s.Root, "one project has no list around it")
	}
	for _, key := range []string{"nosuch", "../../etc", "", "x\x00y"} {
		o := w.options()
		o.Dir = t.TempDir()
		_, err := OpenWorkspaces(o, Selection{Workspace: key + "-"}, nil)
		require.Equal(t, exitNoInput, exitStatus(err), "%q: %v", key, err)
		require.NotEmpty(t, hint(err))
	}
	err := w.everywhere(Selection{Workspace: shop.open().id}).Projects[0].Up(t.Context(), UpOptions{})
	require.Equal(t, exitNoInput, exitStatus(err))
	require.NoError(t, w.everywhere(Selection{Workspace: shop.open().id}).Down(t.Context(), w.events))
	require.Len(t, w.running(), 1, "the other one is left alone")
	w.down()
}

// A repository that holds its own state is moved while its VM runs.
func TestMovedRepositoryGoesDown(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	shop := w.second("shop")
	shop.up()
	moved := shop.dir + "-moved"
	require.NoError(t, os.Rename(shop.dir, moved))
	require.Equal(t, []string{"shop shop-0 running"}, w.seen(w.everywhere(Selection{})))
	report, err := w.everywhere(Selection{}).Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, filepath.Join(moved, ".castra"), report.Workspaces[0].Root)
	require.Contains(t, report.Workspaces[0].Problem, "config missing")
	require.NoError(t, w.everywhere(Selection{}).Down(t.Context(), w.events))
	require.Empty(t, w.running())

	shop.dir = moved
	shop.cleanSlate()
	shop.up()
	shop.down()
	all := w.everywhere(Selection{All: true})
	require.Len(t, all.Projects, 1, "the index has followed")
	require.Empty(t, all.Broken)
}

// Moved with the state in the home directory: the new place is a new project.
func TestMovedProjectKeepsItsOldWorkspace(t *testing.T) {
	port := freePort(t)
	w := newWorld(t, patient, vm("web", forward(port, 80)))
	w.up()
	old := w.open().id
	moved := w.dir + "-moved"
	require.NoError(t, os.Rename(w.dir, moved))
	w.dir = moved
	require.NotEqual(t, old, w.open().id)
	require.Equal(t, []string{"web-0 stopped"}, w.states())

	err := w.open().Up(t.Context(), UpOptions{})
	var taken *PortError
	require.ErrorAs(t, err, &taken)
	require.Equal(t, "VM web-0 of workspace "+old, taken.Owner)
	require.Contains(t, hint(err), "CASTRA_WORKSPACE="+old+" mage down")
	ports, err := w.open().Ports(t.Context())
	require.NoError(t, err)
	require.Equal(t, "VM web-0 of workspace "+old, ports.Ports[0].Conflict)

	require.Equal(t, []string{"scratch web-0 running"}, w.seen(w.everywhere(Selection{})))
	report, err := w.everywhere(Selection{Workspace: old}).Status(t.Context())
	require.NoError(t, err)
	require.Contains(t, report.Workspaces[0].Problem, "config missing")
	require.NoError(t, os.RemoveAll(moved))
	require.NoError(t, w.everywhere(Selection{Workspace: old}).Down(t.Context(), w.events))
	require.Empty(t, w.running())
	require.NoError(t, w.everywhere(Selection{Workspace: old}).Projects[0].Clean(t.Context()))
}

// castra.toml is deleted while its VM runs, and the command is called from a
// directory below.
func TestConfigDeletedWhileRunning(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	other := w.second("shop")
	other.up()
	w.up()
	below := filepath.Join(w.dir, "a", "b")
	require.NoError(t, os.MkdirAll(below, 0o700))
	require.NoError(t, os.Remove(filepath.Join(w.dir, "castra.toml")))
	o := w.options()
	o.Dir = below
	ws, err := OpenWorkspaces(o, Selection{}, w.events)
	require.NoError(t, err)
	require.True(t, ws.One)
	require.Equal(t, []string{"scratch web-0 running"}, w.seen(ws))
	require.Contains(t, w.events.messages(), "castra.toml")
	require.ErrorAs(t, ws.Projects[0].Up(t.Context(), UpOptions{}), new(*config.NotFoundError))
	require.NoError(t, ws.Down(t.Context(), w.events))
	require.Len(t, w.running(), 1, "the project beside it is left alone")
	other.down()
}

// What stands among the workspaces and is none hides nothing.
func TestBrokenWorkspacesHideNothing(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	projects := filepath.Dir(w.open().root)
	require.NoError(t, os.Mkdir(filepath.Join(projects, "empty"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(projects, "file"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(projects, ".notes.swp"), nil, 0o600))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(projects, "dangling")))
	require.NoError(t, os.Remove(w.layout().Record()))
	all := w.everywhere(Selection{})
	require.Equal(t, []string{"scratch web-0 running"}, w.seen(all))
	report, err := all.Status(t.Context())
	require.NoError(t, err)
	var text strings.Builder
	require.NoError(t, report.write(&text))
	for _, name := range []string{"empty", "file", "dangling"} {
		require.Equal(t, 1, strings.Count(text.String(), filepath.Join(projects, name)+": "), "%s\n%s", name, text.String())
	}
	require.NotContains(t, text.String(), ".swp")
	require.NoError(t, all.Down(t.Context(), w.events))
	w.cleanSlate()
}

// What a later Castra wrote is looked at, and never written over.
func TestNewerRecordIsReadOnly(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	w.down()
	for _, path := range []string{w.layout().Record(), w.layout().Session()} {
		before := mustRead(t, path)
		newer := []byte(strings.Replace(string(before), `"schema_version": 1`, `"schema_version": 99`, 1))
		require.NotEqual(t, before, newer)
		require.NoError(t, os.WriteFile(path, newer, 0o600))
		err := w.open().Up(t.Context(), UpOptions{})
		var record *workspace.RecordError
		require.ErrorAs(t, err, &record)
		require.True(t, record.Newer)
		require.NotEmpty(t, hint(err))
		require.NoError(t, w.open().Down(t.Context()))
		require.Equal(t, newer, mustRead(t, path))
		require.Empty(t, w.running())
		require.NoError(t, os.WriteFile(path, before, 0o600))
	}
	w.up()
	w.down()
}

// The VM of a session that only a later Castra can read is ended all the same.
func TestNewerSessionGoesDown(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	path := w.layout().Session()
	newer := []byte(strings.Replace(string(mustRead(t, path)), `"schema_version": 1`, `"schema_version": 99`, 1))
	require.NoError(t, os.WriteFile(path, newer, 0o600))
	w.events.forget()
	require.NoError(t, w.open().Down(t.Context()))
	require.Empty(t, w.running())
	require.Equal(t, newer, mustRead(t, path))
	require.Contains(t, w.events.messages(), "newer")
	require.NoError(t, os.Remove(path))
	w.down()
	w.cleanSlate()
}

// Files of an earlier program of this name go when they are seen.
func TestLegacyFiles(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	l := w.layout()
	old := []string{filepath.Join(l.Logs(), "bus", "events.log"), filepath.Join(l.Root, "broker.pid")}
	kept := filepath.Join(l.Root, "handshakes", "web-0")
	for _, path := range append(old, kept) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("1"), 0o600))
	}
	require.Equal(t, []string{"web-0 running"}, w.states(), "broker.pid is no VM's")
	w.down()
	require.NoDirExists(t, filepath.Join(l.Logs(), "bus"))
	require.NoFileExists(t, old[1])
	require.FileExists(t, kept)
	require.NoError(t, w.open().Clean(t.Context()))
	require.NoFileExists(t, kept)
}

func TestSyntheticProject(t *testing.T) {
	w := newWorld(t, patient)
	dir := filepath.Join(filepath.Dir(w.dir), "Nothing Here")
	require.NoError(t, os.Mkdir(dir, 0o700))
	o := w.options()
	o.Dir, o.BaseImage = dir, w.base
	_, err := Open(o)
	require.ErrorAs(t, err, new(*config.NotFoundError))
	o.Synthetic = true
	require.NoError(t, w.openWith(o).Up(t.Context(), UpOptions{}))
	require.Equal(t, []string{"vm-0 running"}, []string{w.lone(o)})
	require.Empty(t, tree(t, dir), "nothing is written beside")
	root := w.openWith(o).StateRoot()
	require.Equal(t, filepath.Join(w.home, "projects"), filepath.Dir(root))
	// What runs is found without the switch as well.
	o.Synthetic = false
	ws, err := OpenWorkspaces(o, Selection{}, w.events)
	require.NoError(t, err)
	require.NoError(t, ws.Down(t.Context(), w.events))
	require.Empty(t, w.running())
}

// lone is the state of the only VM.
func (w *world) lone(o Options) string {
	w.Helper()
	s, err := w.openWith(o).Status(w.Context())
	require.NoError(w, err)
	require.Len(w, s.VMs, 1)
	return s.VMs[0].Name + " " + s.VMs[0].State
}
