package castra

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/workspace"
)

// refusedUp is an up that must fail before anything is started.
func (w *world) refusedUp(o UpOptions) error {
	w.Helper()
	err := w.open().Up(w.Context(), o)
	require.Error(w, err)
	require.Empty(w, w.running())
	return err
}

func TestMissingQEMU(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	t.Setenv("PATH", t.TempDir())
	err := w.refusedUp(UpOptions{})
	var missing *qemu.MissingToolError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "qemu-system-x86_64", missing.Tool)
	require.Equal(t, exitUnavailable, exitStatus(err))
	require.NoDirExists(t, w.home, "nothing was made")
}

// Overlays are written by Castra itself.
func TestUpWithoutQEMUImg(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	path := t.TempDir()
	for name, from := range map[string]string{"qemu-system-x86_64": filepath.Join(w.fakes, "qemu-system-x86_64"), "sh": "/bin/sh"} {
		require.NoError(t, os.Symlink(from, filepath.Join(path, name)))
	}
	t.Setenv("PATH", path)
	w.up()
	w.down()
}

func TestBadBaseImages(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(t *testing.T, path string)
		says   string
		status int
	}{
		{"missing", func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }, "no such file", exitNoInput},
		{"empty", func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) }, "", exitConfig},
		{"an error page", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("<html>404</html>", 100)), 0o600))
		}, "", exitConfig},
		{"a directory", func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		}, "", exitConfig},
		{"with a backing file", withBackingFile, "backing file", exitConfig},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, patient, "[[vms]]\nname = \"web\"\nmemory = \"64 MiB\"")
			c.make(t, w.base)
			o := w.options()
			o.BaseImage = w.base
			err := w.openWith(o).Up(t.Context(), UpOptions{})
			require.ErrorContains(t, err, "web-0")
			require.ErrorContains(t, err, w.base)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, c.status, exitStatus(err), err)
			if c.status == exitConfig {
				require.ErrorAs(t, err, new(*image.FormatError))
			}
			w.cleanSlate()
		})
	}
}

func withBackingFile(t *testing.T, path string) {
	qemutest.WriteImage(t, path+".below", 1<<20)
	require.NoError(t, qemu.CreateOverlay(qemu.Backing{Path: path + ".below", Format: "qcow2"}, 0, path))
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// A state root that cannot be made or must not be used.
func TestUnusableStateRoot(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(w *world, root string)
		root string
		says string
	}{
		{"below a regular file", func(w *world, _ string) { w.write("file", "") }, "file/state", "not a directory"},
		{"holds other files", func(w *world, _ string) { w.write("state/thesis.txt", "dear") }, "state", "it holds thesis.txt"},
		{"open to others", func(w *world, root string) {
			require.NoError(w, os.Mkdir(root, 0o700))
			require.NoError(w, os.Chmod(root, 0o777))
		}, "state", "other users can write"},
		{"marker of another program", func(w *world, _ string) { w.write("state/.castra-workspace", "{}") }, "state", "not a marker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, patient)
			w.write("castra.toml", fmt.Sprintf("version = \"0.2\"\n[project]\nname = \"scratch\"\nstate_dir = %q\n", c.root)+vm("web"))
			root := filepath.Join(w.dir, c.root)
			c.make(w, root)
			before := snapshot(t, w.dir)
			err := w.refusedUp(UpOptions{})
			require.ErrorAs(t, err, new(*workspace.PreflightError))
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, root)
			require.Equal(t, exitCantCreate, exitStatus(err))
			require.NotEmpty(t, hint(err))
			require.Equal(t, before, snapshot(t, w.dir), "nothing is touched")
		})
	}
}

func TestStateDirBesideTheConfig(t *testing.T) {
	w := newWorld(t, patient)
	w.write("castra.toml", "version = \"0.2\"\n[project]\nname = \"scratch\"\nstate_dir = \".castra\"\n"+vm("web"))
	require.Equal(t, filepath.Join(w.dir, ".castra"), w.open().StateRoot())
	w.up()
	require.Len(t, tree(t, filepath.Join(w.home, "index")), 1)
	require.NoDirExists(t, filepath.Join(w.home, "projects"), "the home holds no more than where it is")
	w.down()
	w.cleanSlate()
}

func TestUnwritableStateRoot(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	w := newWorld(t, patient, vm("web"))
	require.NoError(t, os.Mkdir(w.home, 0o500))
	err := w.refusedUp(UpOptions{})
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Equal(t, exitPermission, exitStatus(err))
}

func TestPortIsTaken(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		t.Run(protocol, func(t *testing.T) {
			port, closePort := listen(t, protocol)
			defer closePort()
			w := newWorld(t, patient, vm("db"), vm("web",
				"[[vms.port_forwards]]", fmt.Sprintf("host = %d", port), "guest = 80", fmt.Sprintf("protocol = %q", protocol)))
			err := w.refusedUp(UpOptions{})
			var taken *PortError
			require.ErrorAs(t, err, &taken)
			require.Equal(t, "web-0", taken.VM)
			require.ErrorContains(t, err, fmt.Sprintf("127.0.0.1:%d", port))
			require.ErrorContains(t, err, fmt.Sprintf("pid %d (", os.Getpid()))
			require.ErrorContains(t, err, fmt.Sprintf("castra.toml:%d", lineOf(w, "[[vms.port_forwards]]")))
			require.NotEmpty(t, hint(err))
			w.cleanSlate()

			ports, err := w.open().Ports(t.Context())
			require.NoError(t, err)
			conflicts := map[int]string{}
			for _, p := range ports.Ports {
				conflicts[p.HostPort] = p.Conflict
			}
			require.Contains(t, conflicts[port], fmt.Sprintf("pid %d (", os.Getpid()))
			require.Empty(t, conflicts[0], "a port that is chosen at launch has none")

			closePort()
			w.up()
			w.down()
			w.cleanSlate()
		})
	}
}

func listen(t *testing.T, protocol string) (port int, closePort func()) {
	if protocol == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		return conn.LocalAddr().(*net.UDPAddr).Port, func() { conn.Close() }
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return ln.Addr().(*net.TCPAddr).Port, func() { ln.Close() }
}

// lineOf is the line of castra.toml that text stands in.
func lineOf(w *world, text string) int {
	w.Helper()
	toml, err := os.ReadFile(filepath.Join(w.dir, "castra.toml"))
	require.NoError(w, err)
	before, _, found := strings.Cut(string(toml), text)
	require.True(w, found)
	return strings.Count(before, "\n") + 1
}

// An address that is not this computer's is not held by anybody.
func TestForeignHostIP(t *testing.T) {
	w := newWorld(t, patient, vm("web", "[[vms.port_forwards]]", `host_ip = "192.0.2.1"`, "host = 8080", "guest = 80"))
	err := w.refusedUp(UpOptions{})
	require.ErrorAs(t, err, new(*PortError))
	require.ErrorContains(t, err, "cannot assign requested address")
	require.NotContains(t, err.Error(), "held by")
}

func TestUnknownNames(t *testing.T) {
	w := newWorld(t, patient, vm("web", "count = 2"))
	for _, c := range []struct {
		o      UpOptions
		says   []string
		status int
	}{
		{UpOptions{VMs: []string{"wbe"}}, []string{`"wbe"`, "web-0, web-1"}, exitNoInput},
		{UpOptions{VMs: []string{"web", "web-2"}}, []string{`"web-2"`}, exitNoInput},
		{UpOptions{Bootstrap: "wbe=skip"}, []string{"wbe", "web"}, exitUsage},
		{UpOptions{Bootstrap: "sometimes"}, []string{"sometimes", "skip, auto, always"}, exitUsage},
		{UpOptions{Bootstrap: "web=skip,web=auto"}, []string{"given twice"}, exitUsage},
	} {
		err := w.refusedUp(c.o)
		for _, part := range c.says {
			require.ErrorContains(t, err, part)
		}
		require.Equal(t, c.status, exitStatus(err))
	}
	require.NoDirExists(t, w.home, "refused before anything was made")
}

func TestUnavailableAccelerator(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	for want, says := range map[string]string{"hvf": "not on ", "KVM": "known: kvm, hvf, tcg", "kvm": "/dev/kvm"} {
		if f, err := os.OpenFile(qemu.KVMDevice, os.O_RDWR, 0); want == "kvm" && err == nil {
			f.Close()
			continue
		}
		o := w.options()
		o.Accelerator = want
		err := w.openWith(o).Up(t.Context(), UpOptions{})
		require.ErrorAs(t, err, new(*qemu.AcceleratorError))
		require.ErrorContains(t, err, says)
		require.Equal(t, exitUnavailable, exitStatus(err))
	}
	require.NoDirExists(t, w.home)
}

func TestTooLittleMemory(t *testing.T) {
	w := newWorld(t, patient, strings.Replace(vm("web"), "64 MiB", "4096 GiB", 1))
	err := w.refusedUp(UpOptions{})
	var room *RoomError
	require.ErrorAs(t, err, &room)
	require.Equal(t, "memory", room.What)
	require.Equal(t, uint64(4096)<<30, room.Need)
	require.Contains(t, explain(err), "CASTRA_FORCE=1")
	w.cleanSlate()

	o := w.options()
	o.Force = true
	require.NoError(t, w.openWith(o).Up(t.Context(), UpOptions{}))
	require.Contains(t, w.events.messages(), "warning: memory: ")
	w.down()
	w.cleanSlate()
}

// All that is wrong is told at once.
func TestFaultsAreJoined(t *testing.T) {
	port, closePort := listen(t, "tcp")
	defer closePort()
	w := newWorld(t, patient, strings.Replace(vm("web", "[[vms.port_forwards]]", fmt.Sprintf("host = %d", port), "guest = 80"), "64 MiB", "4096 GiB", 1))
	err := w.refusedUp(UpOptions{})
	require.ErrorAs(t, err, new(*PortError))
	require.ErrorAs(t, err, new(*RoomError))
	text := explain(err)
	require.Contains(t, text, "leave out host")
	require.Contains(t, text, "CASTRA_FORCE=1")
}
