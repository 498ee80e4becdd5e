package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	twins = `
[[vms]]
name = "web"
count = 2
image = "small"
cpus = 1
memory = "256 MiB"
`
	// restores of one template, two at a time; with CASTRA_LONG=1 there are more.
	restores, manyRestores = 20, 50
)

// fates are numbers that no two guests may have in common.
type fates map[string]string

func (f fates) add(t *testing.T, number, of string) {
	t.Helper()
	require.GreaterOrEqual(t, len(number), 16, of)
	require.Empty(t, f[number], "%s of %s", number, of)
	f[number] = of
}

// cookie is what the SSH server drew for this connection (RFC 4253, 7.1).
func (p *warmProject) cookie(vm vmStatus) string {
	p.t.Helper()
	for _, f := range vm.Forwards {
		if f.GuestPort != 22 {
			continue
		}
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(f.HostIP, strconv.Itoa(f.HostPort)), 10*time.Second)
		require.NoError(p.t, err)
		defer conn.Close()
		require.NoError(p.t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = io.WriteString(conn, "SSH-2.0-e2e\r\n")
		require.NoError(p.t, err)
		r := bufio.NewReader(conn)
		banner, err := r.ReadString('\n')
		require.NoError(p.t, err)
		require.True(p.t, strings.HasPrefix(banner, "SSH-2.0-"), banner)
		packet := make([]byte, 4+1+1+16) // length, length of the padding, type, cookie
		_, err = io.ReadFull(r, packet)
		require.NoError(p.t, err)
		require.EqualValues(p.t, 20, packet[5], "KEXINIT")
		return fmt.Sprintf("%x", packet[6:])
	}
	require.Fail(p.t, "no forward to SSH", vm)
	return ""
}

// clock asserts that the guest knows what time it is, to a second.
func (p *warmProject) clock(vm string) {
	p.t.Helper()
	before := time.Now()
	said := strings.TrimSpace(p.must("exec", vm, "date +%s").stdout)
	after := time.Now()
	guest, err := strconv.ParseInt(said, 10, 64)
	require.NoError(p.t, err)
	require.GreaterOrEqual(p.t, guest, before.Unix()-1, "%s is late", vm)
	require.LessOrEqual(p.t, guest, after.Unix()+1, "%s is early", vm)
}

// look asserts who the guest is and that nobody was there before, draws random
// numbers, and leaves something behind.
func (p *warmProject) look(vm string, drawn fates) {
	p.t.Helper()
	out := p.must("exec", vm, `cat /proc/sys/kernel/random/uuid
head -c 64 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; echo
hostname; cat /etc/hostname; cat /root/left 2>/dev/null || echo nothing
echo from an earlier run >/root/left; sync`).stdout
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(p.t, lines, 5, out)
	drawn.add(p.t, lines[0], vm)
	require.Len(p.t, lines[1], 128)
	drawn.add(p.t, lines[1], vm)
	require.Equal(p.t, []string{vm, vm, "nothing"}, lines[2:])
}

// Two replicas of one template, restored again and again: each is itself,
// knows the time, draws numbers of its own and leaves nothing behind.
func TestWarmReplicas(t *testing.T) {
	t.Parallel()
	p := newWarm(t, twins)
	rounds := restores / 2
	if os.Getenv("CASTRA_LONG") == "1" && !testing.Short() {
		rounds = manyRestores / 2
	}
	starts := p.up()
	kinds := []string{starts["web-0"].Start, starts["web-1"].Start}
	require.ElementsMatch(t, []string{"cold", "ram"}, kinds, "the second is restored from the first: %+v", starts)
	made := time.Now()
	drawn := fates{}
	draw := func() {
		vms := p.status()
		for _, vm := range []string{"web-0", "web-1"} {
			p.look(vm, drawn)
			drawn.add(p.t, p.cookie(vms[vm]), "KEXINIT of "+vm)
		}
	}
	draw()
	before := p.sums()
	require.NotEmpty(t, before)
	p.down()
	p.eventually("the template is old", func() bool { return time.Since(made) > 3500*time.Millisecond })

	for round := range rounds {
		starts = p.up()
		for _, vm := range []string{"web-0", "web-1"} {
			p.requireStart(starts[vm], "ram", "ready")
			if round < 2 {
				p.clock(vm)
			}
		}
		draw()
		require.Empty(t, p.up(), "both run")
		require.Empty(t, p.warned())
		if round < rounds-1 {
			p.down()
		}
	}
	require.Equal(t, before, p.sums(), "the template is as it was saved")

	p.part("reboot", p.reboots)
	p.down()
	require.Equal(t, before, p.sums())
}

// reboots asserts that a restored guest can boot.
func (p *warmProject) reboots() {
	const bootID = "cat /proc/sys/kernel/random/boot_id"
	first := p.must("exec", "web-1", bootID).stdout
	_ = p.mage("exec", "web-1", "echo kept >/root/kept; sync; reboot") // the connection may be cut
	require.Eventually(p.t, func() bool {
		r := p.mage("exec", "web-1", bootID)
		return r.status == 0 && r.stdout != first
	}, time.Minute, 200*time.Millisecond, "it boots again: %+v", p.status()["web-1"])
	require.Equal(p.t, "web-1\nweb-1\nkept\nfrom an earlier run\n", p.must("exec", "web-1", "hostname; cat /etc/hostname /root/kept /root/left").stdout)
	require.Equal(p.t, "running", p.status()["web-1"].State)
	p.clock("web-1")
	require.Empty(p.t, p.up(), "both run")
	require.Equal(p.t, "web-0\n", p.must("exec", "web-0", "hostname").stdout)
}

// app is a VM whose bootstrap starts what serves.
type app struct {
	hostPort, cpus, memory int
	colour, mode, extra    string
}

func (a app) toml() string {
	return fmt.Sprintf(`
[[vms]]
name = "app"
image = "small"
cpus = %d
memory = %d
%s
[[vms.port_forwards]]
host = %d
guest = 8080

[vms.bootstrap]
script = "run.sh"
payload = "files"
mode = %q

[vms.bootstrap.env]
COLOUR = %q
`, a.cpus, a.memory, a.extra, a.hostPort, a.mode, a.colour)
}

const appScript = `#!/bin/sh
set -eu
echo run >>/root/runs
rm -rf /srv
mkdir -p /srv
echo "$COLOUR" >/srv/colour
cp -P "$CASTRA_PAYLOAD_DIR"/* /srv/
cat >/srv/count.sh <<'END'
i=0
while :; do i=$((i + 1)); echo $i >/srv/count.new; mv /srv/count.new /srv/count; sleep 0.1; done
END
setsid sh /srv/count.sh </dev/null >/dev/null 2>&1 &
httpd -p 8080 -h /srv
`

func openPort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func newApp(t *testing.T) (*warmProject, app) {
	a := app{hostPort: openPort(t), cpus: 1, memory: 256, colour: "red-is-it", mode: "auto"}
	p := newWarm(t, a.toml())
	p.write("run.sh", appScript)
	p.write("files/page", "hello")
	p.write("files/other", "hullo")
	require.NoError(t, os.Symlink("page", filepath.Join(p.dir, "files", "link")))
	return p, a
}

// served asserts that what bootstrap started once runs on and is reached at the host's port.
func (p *warmProject) served(a app) {
	p.t.Helper()
	get := func(path string) string {
		return strings.TrimSpace(fetch(p.t, fmt.Sprintf("http://127.0.0.1:%d/%s", a.hostPort, path)))
	}
	require.Equal(p.t, a.colour, get("colour"))
	count := func() int {
		var n int
		_, err := fmt.Sscan(get("count"), &n)
		require.NoError(p.t, err)
		return n
	}
	p.eventually("it counts", func() bool { return strings.TrimSpace(get("count")) != "" })
	first := count()
	p.eventually("it goes on", func() bool { return count() > first })
	require.Equal(p.t, "run\n", p.must("exec", "app", "cat /root/runs").stdout, "bootstrap has run once in this guest's life")
}

// What bootstrap started is restored as it ran, is reached through other ports
// of the host, and reaches the host.
func TestWarmNetwork(t *testing.T) {
	t.Parallel()
	p, a := newApp(t)
	canary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "reached") }))
	t.Cleanup(canary.Close)
	_, port, err := net.SplitHostPort(canary.Listener.Addr().String())
	require.NoError(t, err)
	out := `printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 10.0.2.2 ` + port

	p.requireStart(p.up()["app-0"], "cold", "")
	p.served(a)
	for range 2 {
		p.down()
		a.hostPort = openPort(t)
		p.config(a.toml())
		p.requireStart(p.up()["app-0"], "ram", "bootstrapped")
		planned := p.since("bootstrap.planned")
		require.Len(t, planned, 1)
		require.Equal(t, "skip", planned[0].Action)
		require.Contains(t, planned[0].Reason, "restored from a template")
		require.Equal(t, "noop", p.status()["app-0"].Bootstrap)
		p.served(a)
		require.Contains(t, p.must("exec", "app", out).stdout, "reached")
	}
	require.Empty(t, p.up())
	require.Equal(t, "skip", p.since("bootstrap.planned")[0].Action)
	p.down()
}

// What bootstrap depends on decides whether a guest that has run it is taken.
func TestWarmBootstrapChanges(t *testing.T) {
	t.Parallel()
	p, a := newApp(t)
	first := a
	p.up()
	p.down()
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"env", func() error { a.colour = "green-is-it"; return nil }},
		{"target of a symlink", func() error {
			link := filepath.Join(p.dir, "files", "link")
			require.NoError(t, os.Remove(link))
			return os.Symlink("other", link)
		}},
		{"mode of a file", func() error { return os.Chmod(filepath.Join(p.dir, "files", "page"), 0o755) }},
		{"content of a file", func() error { p.write("files/other", "holla"); return nil }},
		{"script", func() error { p.write("run.sh", appScript+"# changed\n"); return nil }},
	} {
		p.part(c.name, func() {
			require.NoError(p.t, c.change())
			p.config(a.toml())
			h := p.up()["app-0"]
			p.requireStart(h, "ram", "ready")
			require.Contains(p.t, h.Reason, "bootstrap changed")
			require.Equal(p.t, "run", p.since("bootstrap.planned")[0].Action)
			require.Equal(p.t, "applied", p.status()["app-0"].Bootstrap)
			p.served(a)
			saved := p.since("vm.template.saved")
			require.Len(p.t, saved, 1)
			require.Equal(p.t, "bootstrapped", saved[0].Stage)
			p.down()
		})
	}
	p.part("mode always", func() {
		b := a
		b.mode = "always"
		p.config(b.toml())
		for range 2 {
			p.requireStart(p.up()["app-0"], "ram", "ready")
			require.Equal(p.t, "run", p.since("bootstrap.planned")[0].Action)
			require.Equal(p.t, "applied", p.status()["app-0"].Bootstrap)
			p.served(b)
			p.down()
		}
	})
	p.part("machine", func() { p.machines(a) })
	p.part("back again", func() {
		p.write("run.sh", appScript)
		p.write("files/other", "hullo")
		require.NoError(p.t, os.Chmod(filepath.Join(p.dir, "files", "page"), 0o600))
		require.NoError(p.t, os.Remove(filepath.Join(p.dir, "files", "link")))
		require.NoError(p.t, os.Symlink("page", filepath.Join(p.dir, "files", "link")))
		p.config(first.toml())
		p.requireStart(p.up()["app-0"], "ram", "bootstrapped")
		p.served(first)
		p.down()
	})
}

// machines asserts that no template is taken for another machine or kernel line.
func (p *warmProject) machines(a app) {
	b := a
	b.cpus = 2
	p.config(b.toml())
	h := p.up()["app-0"]
	p.requireStart(h, "cold", "")
	require.Contains(p.t, h.Reason, "cpus")
	require.Equal(p.t, "run", p.since("bootstrap.planned")[0].Action)
	p.served(b)
	p.down()

	b = a
	b.memory = 300
	p.config(b.toml())
	planned := p.plan("app-0")
	require.Equal(p.t, "cold", planned.Start, planned)
	require.Contains(p.t, planned.Reason, "memory_mib")

	guest := filepath.Dir(planned.Image)
	b = a
	b.extra = fmt.Sprintf("kernel = %q\ninitrd = %q\nappend = \"console=ttyS0 quiet\"\n", guest+"/vmlinux", guest+"/initrd")
	p.config(b.toml())
	planned = p.plan("app-0")
	require.Equal(p.t, "cold", planned.Start, planned)
	require.Contains(p.t, planned.Reason, "append")
}
