package workspace

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// C1, failure bank 90 and 93: a directory that is not Castra's, or no place at
// all, never becomes a workspace, and nothing in it changes.
func TestHostileRoots(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, root := range []string{"", ".", "..", "./", "state", "../x", "~", "~/.castra", "$HOME", "-", "\x00"} {
		_, err := Create(root, "x-0")
		require.ErrorAs(t, err, new(*PreflightError), "%q", root)
	}
	here, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, here)

	for name, files := range map[string][]string{
		"home": {".bashrc", ".ssh/id", "thesis.txt"}, "repository": {".git/HEAD", "castra.toml", "magefile.go"}, "one file": {"f"},
		"like a workspace": {"images/my.qcow2", "logs/x.log", "overlays/o.qcow2", "metadata/workspace.json", "web-0.pid"},
		"hidden file":      {".hidden"}, "git files and one more": {".gitignore", ".gitkeep", "f"},
		"an empty marker": {markerName}, "a marker elsewhere": {"sub/" + markerName}, "a directory as marker": {markerName + "/f"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, file := range files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(root, file), []byte("mine"), 0o644))
			}
			before := tree(t, root)
			_, err := Create(root, "x-0")
			require.ErrorAs(t, err, new(*PreflightError))
			_, err = Open(root)
			require.Error(t, err, "so clean and down have nothing to work on")
			require.Equal(t, before, tree(t, root))
		})
	}
	for _, root := range []string{"/", "/etc", "/usr", "/tmp", "/proc", "/dev", "/dev/null", "/etc/passwd"} {
		_, err := Create(root, "x-0")
		require.ErrorAs(t, err, new(*PreflightError), root)
	}
}

// A marker is a small regular file with our words and an ID in it.
func TestMarkers(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"symlink": func(path string) error {
			other := path + ".other"
			return os.Symlink(other, path)
		},
		"FIFO":  func(path string) error { return unix.Mkfifo(path, 0o600) },
		"huge":  func(path string) error { return os.WriteFile(path, make([]byte, recordLimit+1), 0o600) },
		"no ID": func(path string) error { return os.WriteFile(path, []byte(`{"magic":"castra workspace"}`), 0o600) },
		"path": func(path string) error {
			return os.WriteFile(path, []byte(`{"magic":"castra workspace","id":"../x"}`), 0o600)
		},
		"controls": func(path string) error {
			return os.WriteFile(path, []byte(`{"magic":"castra workspace","id":"a\u001b[2J"}`), 0o600)
		},
		"other": func(path string) error { return os.WriteFile(path, []byte(`{"magic":"other","id":"x-0"}`), 0o600) },
	} {
		root := t.TempDir()
		require.NoError(t, put(filepath.Join(root, markerName)), name)
		_, err := Open(root)
		require.ErrorAs(t, err, new(*PreflightError), name)
	}
}

// names that random trees are made of: Castra's own, and what lies beside them.
var names = []string{
	"images/a.qcow2", "images/d/e/f", "images/link", "overlays/o.qcow2", "overlays/web-0-seed.iso", "logs/web-0.log", "logs/bus/x", "logs/bootstrap/r.json",
	"bootstrap/web-0/run.sh", "handshakes/h", "metadata/session.json", "metadata/session.json.corrupt-1", "metadata/workspace.json", "metadata/workspace.json.corrupt-2",
	"metadata/id_ed25519", "metadata/session.json.bak", "web-0.pid", "web-0.qmp", "real.qmp", "lock", "notes.txt", "src/main.go", "images.txt", "logs2/f", ".git/HEAD",
}

// plant puts a file, a symlink to outside, a directory or a socket at name;
// what stands in the way is left. It goes through root, as it must not write
// outside either.
func plant(t *rapid.T, root *os.Root, name, outside string) {
	if root.MkdirAll(filepath.Dir(name), 0o700) != nil {
		return
	}
	file := func(name string) {
		if f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			f.Write(make([]byte, rapid.IntRange(0, 9000).Draw(t, "size")))
			f.Close()
		}
	}
	switch rapid.SampledFrom([]string{"file", "file", "file", "symlink", "dirlink", "directory", "socket"}).Draw(t, "kind of "+name) {
	case "symlink":
		root.Symlink(filepath.Join(outside, "f"), name)
	case "dirlink":
		root.Symlink(outside, name)
	case "directory":
		root.MkdirAll(filepath.Join(name, "sub"), 0o700)
		file(filepath.Join(name, "sub", "f"))
	case "socket":
		if filepath.Base(name) == name {
			unix.Mknod(filepath.Join(root.Name(), name), unix.S_IFSOCK|0o600, 0)
		}
	default:
		file(name)
	}
}

// C1, C5: of any tree, what is removed is what was planned, what was planned is
// on the list of Castra's names, and nothing outside changes.
func TestPlannedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	require.NoError(t, os.MkdirAll(filepath.Join(outside, "sub"), 0o700))
	for _, f := range []string{"f", "sub/g"} {
		require.NoError(t, os.WriteFile(filepath.Join(outside, f), []byte("canary"), 0o600))
	}
	canaries := tree(t, outside)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		w, err := Create(filepath.Join(dir, fmt.Sprint(n)), "x-0")
		require.NoError(rt, err)
		if rapid.Bool().Draw(rt, "a directory is a symlink") {
			d := rapid.SampledFrom([]string{imagesName, logsName, overlaysName, metadataName}).Draw(rt, "which")
			os.Remove(w.join(d))
			os.Symlink(outside, w.join(d))
		}
		root, err := os.OpenRoot(w.Root)
		require.NoError(rt, err)
		defer root.Close()
		for _, name := range rapid.SliceOfN(rapid.SampledFrom(names), 0, 30).Draw(rt, "names") {
			plant(rt, root, name, outside)
		}
		o := RemoveOptions{KeepLogs: rapid.Bool().Draw(rt, "keep logs"), KeepOverlays: rapid.Bool().Draw(rt, "keep overlays")}
		before := paths(rt, w.Root)
		items, err := w.Removable(o)
		require.NoError(rt, err)
		require.Equal(rt, before, paths(rt, w.Root), "a plan changes nothing")
		var removed []Item
		require.NoError(rt, w.Clean(items, func(i Item) { removed = append(removed, i) }))
		require.Equal(rt, items, removed)

		var want []string // what is left
		for _, path := range before {
			if !slices.ContainsFunc(items, func(i Item) bool { return path == i.Path || strings.HasPrefix(path, i.Path+"/") }) {
				want = append(want, path)
			}
		}
		require.Equal(rt, want, paths(rt, w.Root))
		for _, i := range items {
			top, _, _ := strings.Cut(i.Path, "/")
			require.False(rt, o.KeepLogs && top == logsName || o.KeepOverlays && (top == overlaysName || top == metadataName))
			require.Contains(rt, []string{imagesName, logsName, overlaysName, bootstrapName, handshakesName, metadataName, "web-0.qmp", "real.qmp"}, top)
			require.NotContains(rt, []string{"metadata/workspace.json", "metadata/id_ed25519", "metadata/session.json.bak"}, i.Path)
		}
		again, err := w.Removable(o)
		require.NoError(rt, err)
		require.Empty(rt, again, "all that could be removed is")
	})
	require.Equal(t, canaries, tree(t, outside))
}

func paths(t *rapid.T, root string) []string {
	var all []string
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	}))
	return all
}

// C2: what is mounted in a workspace is not Castra's to empty.
func TestMounted(t *testing.T) {
	root := t.TempDir()
	w := &Workspace{Layout{root}, "x-0"}
	mounts := []string{"/", "/proc", filepath.Dir(root), root, filepath.Join(root, "images/sub/usb"), filepath.Join(root, "logs/x.log"), filepath.Join(root, "overlays")}
	for path, want := range map[string]bool{"overlays/x": true, "overlays2/x": false, "images/sub": true, "images/sub/usb": true, "images/su": false, "images/sub2": false, "logs/x.log": true, "logs/x.log2": false, "images/sub/usb/below": true} {
		require.Equal(t, want, w.mounted(path, mounts), path)
	}
}

// The same with a real bind mount, in a namespace of its own.
func TestCleanLeavesMounts(t *testing.T) {
	if root := os.Getenv("CASTRA_TEST_MOUNT"); root != "" {
		cleanAroundMount(t, root)
		return
	}
	root := filepath.Join(t.TempDir(), "ws")
	_, err := Create(root, "x-0")
	require.NoError(t, err)
	cmd := exec.Command("unshare", "--mount", os.Args[0], "-test.run=^TestCleanLeavesMounts$", "-test.v")
	cmd.Env = append(os.Environ(), "CASTRA_TEST_MOUNT="+root)
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "=== RUN") {
		t.Skipf("no namespace for mounts here: %v: %s", err, out)
	}
	require.NoError(t, err, string(out))
}

func cleanAroundMount(t *testing.T, root string) {
	w, err := Open(root)
	require.NoError(t, err)
	stick := filepath.Join(t.TempDir(), "stick")
	canary := filepath.Join(stick, "thesis.qcow2")
	on := filepath.Join(w.Images(), "deep", "stick")
	for _, dir := range []string{stick, on} {
		require.NoError(t, os.MkdirAll(dir, 0o700))
	}
	for _, file := range []string{canary, filepath.Join(w.Images(), "cache.qcow2")} {
		require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	}
	if out, err := exec.Command("mount", "--bind", stick, on).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	defer exec.Command("umount", on).Run() // or the removal of the test's directory would meet it
	items, err := w.Removable(RemoveOptions{})
	require.NoError(t, err)
	require.Len(t, items, 1)
	require.Equal(t, "images/cache.qcow2", items[0].Path)
	err = w.Clean(append(items, Item{Path: "images/deep"}), func(Item) {})
	require.ErrorContains(t, err, "a file system is mounted there")
	require.FileExists(t, canary)
	require.NoFileExists(t, filepath.Join(w.Images(), "cache.qcow2"))
}
