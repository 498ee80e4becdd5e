package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

const twoVMs = `
[[vms]]
name = "web"
count = 2
image = "small"
cpus = 1
memory = "256 MiB"

[[vms.port_forwards]]
guest = 80

[vms.bootstrap]
script = "run.sh"
payload = "page"
verify_command = "test -n \"$HOME\" && test -s /var/www/index.html"
verify_path = "/var/www"

[vms.bootstrap.env]
GREETING = "it's $HOME \"quoted\" and s3cr3t-canary"
`

const webScript = `#!/bin/sh
set -eu
mkdir -p /var/www
{ cat "$CASTRA_PAYLOAD_DIR/index.html"; echo "$CASTRA_VM"; printf %s "$GREETING"; } > /var/www/index.html
httpd -p 80 -h /var/www
echo configured
`

// The main job: every verb twice, and nothing left.
func TestMainJob(t *testing.T) {
	p := newProject(t, twoVMs)
	p.write("run.sh", webScript)
	p.write("page/index.html", "hello from ")

	for round := range 2 {
		up := p.must("up")
		require.Contains(t, up.stderr, "web-0")
		require.Empty(t, up.stdout, "stdout is for results")
		again := p.must("up")
		require.Contains(t, again.stderr, "nothing to do")
		require.Len(t, p.qemus(), 2)

		for range 2 {
			vms := p.status()
			require.Len(t, vms, 2)
			for _, vm := range vms {
				require.Equal(t, "running", vm.State, vm.Problem)
				// The second time it is in the template.
				require.Equal(t, []string{"applied", "noop"}[round], vm.Bootstrap)
			}
			ports := p.must("ports").stdout
			require.Contains(t, ports, "web-0")
			require.Contains(t, ports, "80/tcp")
			require.Equal(t, "web-1\n", p.must("exec", "web-1", "hostname").stdout)
		}
		for name, vm := range p.status() {
			for _, f := range vm.Forwards {
				if f.GuestPort != 80 {
					continue
				}
				body := fetch(t, fmt.Sprintf("http://%s:%d/", f.HostIP, f.HostPort))
				require.Equal(t, "hello from \n"+name+"\nit's $HOME \"quoted\" and s3cr3t-canary", strings.Replace(body, "hello from "+name, "hello from \n"+name, 1))
			}
		}
		require.Equal(t, 3, p.mage("exec", "web-0", "exit 3").status)
		require.Equal(t, 66, p.mage("exec", "db-0", "true").status)

		p.must("down")
		p.cleanSlate()
		require.Contains(t, p.must("down").stderr, "nothing ran")
		require.Equal(t, 66, p.mage("exec", "web-0", "true").status)
		require.Equal(t, "stopped", p.status()["web-0"].State)
		if round == 1 {
			p.must("clean")
			p.must("clean")
			left, err := filepath.Glob(p.state("images", "*"))
			require.NoError(t, err)
			require.Empty(t, left)
		} else {
			require.Len(t, p.events("vm.cooperative.succeeded"), 2, "ACPI powered both off")
			noSecrets(t, p.state())
		}
	}
}

func fetch(t *testing.T, url string) string {
	res, err := http.Get(url)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	require.NoError(t, err)
	return string(b)
}

// G1 and G3: no value of env in any file, no file open to others.
func noSecrets(t *testing.T, root string) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "%s is open to others (%v)", path, info.Mode())
		if d.Type().IsRegular() && filepath.Base(path) != "config_snapshot.toml" {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NotContains(t, string(b), "s3cr3t-canary", path)
			files++
		}
		return nil
	}))
	require.Greater(t, files, 5)
}

// The same disk boots by BIOS from its own MBR, and a project takes it as
// base_image; here also what QEMU is allowed, where it listens, and that a
// guest that is shut in does not get at this computer (F-7; that others do,
// TestWarmNetwork shows).
func TestBIOSBootSandboxAndLoopback(t *testing.T) {
	p := newProject(t, "[[vms]]\nname = \"any\"\ncpus = 1\nimage = \"small\"\n")
	var plan struct {
		VMs []struct {
			BaseImage string `json:"base_image"`
		}
	}
	p.must("up")
	require.NoError(t, json.Unmarshal([]byte(p.must("plan", "-json").stdout), &plan))
	p.must("down")

	p.config(fmt.Sprintf("[[vms]]\nname = \"disk\"\ncount = 1\ncpus = 1\nmemory = 256\nnetwork = \"isolated\"\nbase_image = %q\n", plan.VMs[0].BaseImage))
	p.must("up")
	vm := p.status()["disk-0"]
	require.Equal(t, "running", vm.State)
	require.Contains(t, p.must("exec", "disk", "cat /proc/cmdline").stdout, "BOOT_IMAGE", "syslinux started the kernel")

	var hits atomic.Int32
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	t.Cleanup(canary.Close)
	_, port, err := net.SplitHostPort(canary.Listener.Addr().String())
	require.NoError(t, err)
	out := `for host in 10.0.2.2 10.0.2.3 127.0.0.1; do printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 $host ` + port + `; done; echo tried`
	require.Contains(t, p.must("exec", "disk", out).stdout, "tried")
	require.Zero(t, hits.Load(), "it got at this computer's loopback")

	if runtime.GOOS == "linux" {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", vm.PID))
		require.NoError(t, err)
		require.Regexp(t, `(?m)^Seccomp:\s+2$`, string(b))
		require.Regexp(t, `(?m)^NoNewPrivs:\s+1$`, string(b))
	}
	for _, addr := range otherAddresses(t) {
		for _, f := range vm.Forwards {
			_, err := net.Dial("tcp", net.JoinHostPort(addr, strconv.Itoa(f.HostPort)))
			require.Error(t, err, "forward is open on %s", addr)
		}
	}
	session, err := os.Stat(p.state("metadata", "session.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), session.Mode().Perm())
}

// otherAddresses are this computer's own, but for loopback.
func otherAddresses(t *testing.T) []string {
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	var other []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			other = append(other, n.IP.String())
		}
	}
	return other
}
