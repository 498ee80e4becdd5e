package castra

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image"
)

// one selects the world's own project.
func (w *world) one(force bool) *Workspaces {
	w.Helper()
	o := w.options()
	o.Force = force
	ws, err := OpenWorkspaces(o, Selection{}, w.events)
	require.NoError(w, err)
	return ws
}

// global selects every workspace under the home, as prune -global does.
func (w *world) global(force bool) *Workspaces {
	w.Helper()
	o := w.options()
	o.Force = force
	ws, err := OpenWorkspaces(o, Selection{All: true}, w.events)
	require.NoError(w, err)
	ws.underHome()
	return ws
}

func paths(items []PrunedItem) []string {
	var all []string
	for _, item := range items {
		all = append(all, item.Path)
	}
	slices.Sort(all)
	return all
}

// left tells which of the paths are there.
func left(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(path string) bool {
		_, err := os.Lstat(path)
		return err != nil
	})
}

// crash ends the world's QEMUs and leaves their traces.
func (w *world) crash() {
	w.Helper()
	for _, pid := range w.running() {
		process, err := os.FindProcess(pid)
		require.NoError(w, err)
		require.NoError(w, process.Kill())
	}
	require.Eventually(w, func() bool { return len(w.running()) == 0 }, patience, poll)
}

func TestPruneDoesWhatItsDryRunTells(t *testing.T) {
	for name, o := range map[string]PruneOptions{
		"plain": {}, "logs kept": {KeepLogs: true}, "overlays kept": {KeepOverlays: true}, "both kept": {KeepLogs: true, KeepOverlays: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"), vm("db", `overlay = "disks/db.qcow2"`))
			w.write("bootstrap/web/run.sh", "true")
			w.up()
			w.crash() // what a crash leaves is to be found as well
			l := w.layout()
			require.NoError(t, os.WriteFile(filepath.Join(l.Images(), "cached.qcow2"), make([]byte, 8192), 0o600))
			mine := filepath.Join(l.Root, "notes.txt")
			require.NoError(t, os.WriteFile(mine, []byte("mine"), 0o600))
			canary := filepath.Join(t.TempDir(), "canary")
			require.NoError(t, os.WriteFile(canary, []byte("not yours"), 0o600))
			require.NoError(t, os.Symlink(filepath.Dir(canary), filepath.Join(l.Images(), "link")))

			before := snapshot(t, filepath.Dir(w.dir))
			dry := o
			dry.DryRun = true
			planned, err := w.one(false).Prune(t.Context(), dry)
			require.NoError(t, err)
			require.Equal(t, before, snapshot(t, filepath.Dir(w.dir)), "a dry run writes nothing")
			require.NotEmpty(t, planned.Items)
			require.Equal(t, paths(planned.Items), left(paths(planned.Items)), "what it tells of is there")

			all := tree(t, filepath.Dir(w.dir))
			gone, err := w.one(false).Prune(t.Context(), o)
			require.NoError(t, err)
			require.Equal(t, paths(planned.Items), paths(gone.Items))
			require.Equal(t, planned.Bytes, gone.Bytes)
			require.Empty(t, left(paths(gone.Items)))
			// And nothing else went: whatever is missing lies at or below an item.
			now := tree(t, filepath.Dir(w.dir))
			for _, path := range all {
				path = filepath.Join(filepath.Dir(w.dir), path)
				told := slices.ContainsFunc(paths(gone.Items), func(item string) bool { return path == item || strings.HasPrefix(path, item+"/") })
				rel, err := filepath.Rel(filepath.Dir(w.dir), path)
				require.NoError(t, err)
				require.Equal(t, told, !slices.Contains(now, rel), path)
			}
			require.FileExists(t, mine)
			require.FileExists(t, canary)
			require.FileExists(t, w.base)
			require.Equal(t, o.KeepLogs, exists(l.SerialLog("web-0")))
			require.Equal(t, o.KeepOverlays, exists(w.overlay("web-0")))
			require.Equal(t, o.KeepOverlays, exists(filepath.Join(w.dir, "disks", "db.qcow2")))
			w.down() // also finds the overlays that were kept
			require.NoFileExists(t, filepath.Join(w.dir, "disks", "db.qcow2"))
			w.cleanSlateBut("notes.txt")
		})
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// cleanSlateBut is cleanSlate with a file of the user's.
func (w *world) cleanSlateBut(name string) {
	w.Helper()
	require.NoError(w, os.Remove(filepath.Join(w.layout().Root, name)))
	w.cleanSlate()
}

func TestPruneBesideRunningVMs(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	shop := w.second("shop")
	other := *w
	other.dir = filepath.Join(filepath.Dir(w.dir), "other")
	require.NoError(t, os.Mkdir(other.dir, 0o700))
	other.write("castra.toml", "version = \"0.2\"\n[project]\nname = \"other\"\n"+strings.ReplaceAll(vm("db"), "base.qcow2", w.base))
	for _, p := range []*world{w, shop, &other} {
		p.up()
	}
	before := maps.Clone(w.session().VMs)
	_, err := w.global(false).Prune(t.Context(), PruneOptions{KeepOverlays: true})
	var running *RunningError
	require.ErrorAs(t, err, &running)
	require.ElementsMatch(t, []string{w.open().id + "/web-0", other.open().id + "/db-0"}, running.VMs, "all are named")
	require.Equal(t, exitBusy, exitStatus(err))
	require.Len(t, w.running(), 3)
	require.Equal(t, before, w.session().VMs)

	other.down()
	_, err = w.global(false).Prune(t.Context(), PruneOptions{KeepOverlays: true})
	require.ErrorAs(t, err, &running, "nothing goes while one runs")
	require.FileExists(t, other.layout().SerialLog("db-0"))

	gone, err := w.global(true).Prune(t.Context(), PruneOptions{KeepOverlays: true})
	require.NoError(t, err)
	require.NotEmpty(t, gone.Items)
	require.NoFileExists(t, other.layout().SerialLog("db-0"))
	require.Len(t, w.running(), 1, "the workspace that lies elsewhere is not of the home")
	require.FileExists(t, shop.layout().SerialLog("shop-0"))
	shop.down()
}

func TestPruneLeavesOverlaysGlobally(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	w.crash()
	overlay := w.overlay("web-0")
	gone, err := w.global(false).Prune(t.Context(), PruneOptions{KeepOverlays: true})
	require.NoError(t, err)
	require.FileExists(t, overlay)
	require.NotContains(t, paths(gone.Items), overlay)
	require.NoFileExists(t, w.layout().Pidfile("web-0"))
	require.Equal(t, []string{"web-0 crashed"}, w.states())
	w.down()
	w.cleanSlate()
}

// An image of the shared store goes unless a VM is on record to run from it.
func TestPruneImages(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	// As the small guest's recipe of another day left it.
	dir := filepath.Join(w.home, "guests", "small-0123456789ab")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	disk := filepath.Join(dir, "disk.qcow2")
	require.NoError(t, os.WriteFile(disk, mustRead(t, w.base), 0o600))
	stored, err := image.All(w.home)
	require.NoError(t, err)
	require.Len(t, stored, 1)
	require.False(t, stored[0].Current)

	w.write("castra.toml", strings.ReplaceAll(string(mustRead(t, filepath.Join(w.dir, "castra.toml"))), `"base.qcow2"`, `"`+disk+`"`))
	w.up()
	shop := w.second("shop")
	shop.up()
	shop.down()
	gone, err := shop.one(false).Prune(t.Context(), PruneOptions{Images: true})
	require.NoError(t, err)
	require.FileExists(t, disk, "web-0 runs from it")
	require.NotContains(t, paths(gone.Items), dir)
	w.down()
	planned, err := shop.one(false).Prune(t.Context(), PruneOptions{Images: true, DryRun: true})
	require.NoError(t, err)
	require.Contains(t, paths(planned.Items), dir)
	require.FileExists(t, disk)
	gone, err = shop.one(false).Prune(t.Context(), PruneOptions{Images: true})
	require.NoError(t, err)
	require.Contains(t, paths(gone.Items), dir)
	require.NoDirExists(t, dir)
}
