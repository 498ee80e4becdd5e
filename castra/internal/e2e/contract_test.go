package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra"
	"castra.example/castra/castra/castratest"
)

const openAndIsolated = `
[[vms]]
name = "open"
image = "small"
cpus = 1
memory = "256 MiB"

[[vms]]
name = "shut"
count = 2
image = "small"
cpus = 1
memory = "256 MiB"
network = "isolated"

[[vms.instances]]
id = "shut-1"
memory = "300 MiB"
`

// What the contract adds to the main job, with real guests: isolated networks,
// replicas that differ, copies, a repository that moves, and within.
func TestContract(t *testing.T) {
	p := newProject(t, openAndIsolated)
	canary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "reached") }))
	t.Cleanup(canary.Close)
	_, port, err := net.SplitHostPort(canary.Listener.Addr().String())
	require.NoError(t, err)
	p.must("up")

	get := `printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 10.0.2.2 ` + port
	require.Contains(t, p.must("exec", "open", get).stdout, "reached", "the way out is open by default")
	shut := p.mage("exec", "shut-0", get)
	require.NotZero(t, shut.status)
	require.NotContains(t, shut.stdout, "reached")
	require.Equal(t, "shut-0\n", p.must("exec", "shut-0", "hostname").stdout, "and its forwards work")
	memory := func(vm string) (kib int) {
		_, err := fmt.Sscanf(p.must("exec", vm, "grep MemTotal /proc/meminfo").stdout, "MemTotal: %d kB", &kib)
		require.NoError(t, err)
		return kib
	}
	require.Greater(t, memory("shut-1"), memory("shut-0"), "an instance has its own memory")

	p.write("site/index.html", "<p>hello")
	p.write("site/with space/empty", "")
	p.must("copy", "site", "open:/root/site")
	require.Equal(t, "<p>hello", p.must("exec", "open", "cat /root/site/index.html && test -f '/root/site/with space/empty'").stdout)
	p.must("copy", "open:/root/site", "back")
	back, err := os.ReadFile(filepath.Join(p.dir, "back", "index.html"))
	require.NoError(t, err)
	require.Equal(t, "<p>hello", string(back))
	require.Contains(t, p.must("logs", "-vm=open", "-tail=1000").stdout, "open-0 serial")

	// The repository moves with its state inside, and goes down from elsewhere.
	nowhere := *p
	nowhere.dir = t.TempDir()
	moved := p.dir + "-moved"
	require.NoError(t, os.Rename(p.dir, moved))
	defer func() { require.NoError(t, os.Rename(moved, p.dir)) }()
	id := strings.Fields(nowhere.must("status", "-workspace="+filepath.Join(moved, ".castra")).stdout)
	require.NotEmpty(t, id)
	require.Contains(t, nowhere.must("status").stdout, moved, "found by its QEMU")
	nowhere.env = append(nowhere.env, "CASTRA_WORKSPACE="+filepath.Join(moved, ".castra"))
	nowhere.must("down")
	p.dir = moved
	p.cleanSlate()

	r := p.mage("within", `test -n "$CASTRA_OPEN_PORT" && exit 3`)
	require.Equal(t, 3, r.status, r)
	p.cleanSlate()
	p.dir = strings.TrimSuffix(moved, "-moved")
}

// VMs for a Go test, with the real small guest.
func TestStartForAGoTest(t *testing.T) {
	p := newProject(t, "[[vms]]\nname = \"web\"\nimage = \"small\"\ncpus = 1\nmemory = \"256 MiB\"\nport_forwards = [{ guest = 80 }]\n")
	o := castra.Environment()
	o.Dir, o.Home = p.dir, p.home
	vms := castratest.Start(t, castratest.Options{Options: o, Required: os.Getenv("CASTRA_TEST_REQUIRE_QEMU") == "1"})
	vms.Run("web", "mkdir -p /srv && echo served > /srv/index.html && httpd -p 80 -h /srv")
	require.Equal(t, "served\n", fetch(t, "http://"+vms.Address("web", 80)+"/"))
}

// A directory without castra.toml is a project of one VM, if that is asked for.
func TestSynthetic(t *testing.T) {
	p := newProject(t, "")
	require.NoError(t, os.Remove(filepath.Join(p.dir, "castra.toml")))
	require.Equal(t, 66, p.mage("up").status)
	disk, err := castra.EnsureImage(t.Context(), castra.Environment(), "small", nil)
	require.NoError(t, err)
	p.env = append(p.env, "CASTRA_SYNTHETIC=1", "CASTRA_QCOW="+disk, "CASTRA_HOME="+t.TempDir()) // its workspace lies there
	p.must("up")
	require.Equal(t, "vm-0\n", p.must("exec", "vm", "hostname").stdout)
	p.must("down")
	require.Contains(t, p.must("status").stdout, "stopped")
	p.must("clean")
}
