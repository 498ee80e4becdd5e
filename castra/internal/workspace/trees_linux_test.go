package workspace

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/hostile"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/soak"
)

// hostileNames are Castra's own, names that look like them, and the user's.
var hostileNames = append([]string{
	"images/d/a.qcow2", "overlays/.web-0-seed.iso12", "overlays/x-0-overlay-web-0.qcow2", "overlays/web-0-vars.fd", "metadata/.session.json7", "logs/.x3", "bootstrap/.y4",
	markerName + "-9", "broker.pid", "logs/web-0.log", "logs/events.jsonl", "mine/a.qcow2", "mine2/f", "overlays/sub/x.qcow2",
}, names...)

// places that are swapped with symlinks: no one of a group is below another, or
// the swapper itself would reach through it.
var swapped = [][]string{
	{imagesName, overlaysName, logsName, metadataName, bootstrapName},
	{"images/d", "images/a.qcow2", "logs/bus", "overlays/web-0-seed.iso", "overlays/sub", "metadata/session.json", "web-0.qmp", "real.qmp", "web-0.pid", "broker.pid", "bootstrap/web-0"},
	{""}, // the root
}

// C1, C2: of a hundred thousand trees, half of them with a process that swaps
// what is there with symlinks, nothing is removed that is not Castra's. The
// other packages that remove things try the rest of the hundred thousand.
func TestHostileTreesSoak(t *testing.T) {
	if !hostile.InNamespace(t) {
		return
	}
	g := hostile.New(t, hostile.Dir(t), hostileNames)
	swapper := hostile.NewSwapper(t)
	seed := hostile.Seed(t)
	trees, mounts, planned := 0, 0, 0
	root := filepath.Join(g.Dir, "ws")
	for n := range soak.N(300, 60_000) {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		w, err := Create(root, "x-0")
		require.NoError(t, err)
		g.Guard(t, w.join("mine"), "a.qcow2", "web-0-seed.iso", "session.json", ".web-0-seed.iso12", "web-0.log", "bus/f", "x.qcow2")
		g.Plant(r, root, 25)
		switch {
		case n%2 == 0:
			paths := slices.Clone(swapped[r.IntN(len(swapped))])
			for i := range paths {
				paths[i] = filepath.Join(root, paths[i])
			}
			swapper.During(g, r, paths, []string{g.Outside, g.Outside, w.join("mine"), root, "/nowhere"}, func() { removeAll(w) })
		case n%50 == 1:
			if undo := hostile.Bind(g.Outside, w.join([]string{"images", "images/m/n", "logs/bus", "overlays/sub", "bootstrap/web-0"}[r.IntN(5)])); undo != nil {
				mounts++
				removeAll(w)
				undo()
			}
		default:
			planned += plannedIsRemoved(t, w)
		}
		touched, first := g.Touched()
		require.Zero(t, touched, "tree %d: %s", n, first)
		g.Clear(t, root)
		trees++
	}
	soak.AtMost(t, "C1", "canaries touched in hostile workspaces", 0, 0)
	soak.AtLeast(t, "C1", "hostile trees of workspaces, half with a swapper", 60_000, float64(trees))
	soak.AtLeast(t, "C2", "swaps of directories and symlinks in workspaces", 500, float64(swapper.Rounds))
	soak.AtLeast(t, "C5", "random workspaces whose planned set is the deleted set", 1000, float64(planned))
	t.Logf("%d trees with a bind mount, %d canaries", mounts, g.Canaries())
}

// removeAll is all that removes in a workspace; that it fails is none of our
// business here.
func removeAll(w *Workspace) {
	id, _ := Identify(w.Seed("web-0"))
	_, _ = w.RemoveStaged()
	_, _ = w.RemoveLegacy()
	_, _ = RemoveMade(w.Seed("web-0"), host.FileID{Device: id.Device, Inode: id.Inode + 1})
	_ = w.RemoveOwn(w.Seed("web-0"))
	_ = w.RemoveOwn(w.Vars("web-0"))
	_ = w.RemoveOwn(w.Monitor("web-0"))
	_, _ = w.SetAside()
	vms, _ := w.PidfileVMs()
	if root, err := w.OpenRoot(); err == nil {
		for _, vm := range vms {
			_, _ = qemu.RemovePidfile(root, filepath.Base(w.Pidfile(vm)))
		}
		root.Close()
	}
	if items, err := w.Removable(RemoveOptions{}); err == nil {
		_ = w.Clean(items, func(Item) {})
	}
}

// plannedIsRemoved cleans a tree that nobody else works on, and tells that it
// did: what goes is what was planned.
func plannedIsRemoved(t *testing.T, w *Workspace) int {
	t.Helper()
	plan := func() (all []string) {
		for _, list := range []func() ([]Item, error){w.Staged, w.Legacy, func() ([]Item, error) { return w.Removable(RemoveOptions{}) }} {
			items, err := list()
			require.NoError(t, err)
			for _, i := range items {
				all = append(all, i.Path)
			}
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	before, planned := hostile.Paths(w.Root), plan()
	_, err := w.RemoveStaged()
	require.NoError(t, err)
	_, err = w.RemoveLegacy()
	require.NoError(t, err)
	items, err := w.Removable(RemoveOptions{})
	require.NoError(t, err)
	require.NoError(t, w.Clean(items, func(Item) {}))
	left := slices.DeleteFunc(before, func(path string) bool {
		return slices.ContainsFunc(planned, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
	})
	require.Equal(t, left, hostile.Paths(w.Root))
	return 1
}
