package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/mage/guest/debian"
	"castra.example/castra/mage/setup"
)

// Two guests with real cloud-init: one lets root in, one a user that it makes.
// Each has user-data of its own, which adds to what Castra says and also tries
// to lock it out: one as a cloud-config, whose lists are merged, one as an
// archive, whose entries cloud-init lets replace what was before.
const (
	debianVMs = `
[[vms]]
name = "first"
base_image = %q
memory = "1 GiB"
cpus = 1
disk = "4 GiB"
user_data = "user-data.yml"
warm = false
ssh = { user = "root" }
bootstrap = { handshake_timeout_secs = 240 }

[[vms]]
name = "second"
base_image = %q
memory = "1 GiB"
cpus = 1
user_data = "archive.yml"
warm = false
ssh = { user = "dev" }
bootstrap = { handshake_timeout_secs = 240 }
`
	lockout = `
hostname: evil
disable_root: true
ssh_pwauth: true
ssh_deletekeys: false
ssh_keys:
  ed25519_private: evil
  ed25519_public: ssh-ed25519 AAAAevil
`
	addition = "#cloud-config" + lockout + `
ssh_authorized_keys:
  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEKfkVbOPpTLpuTjCmlUoZzDxUNDgmtSYMvuJoNYCxlP of-the-project
users:
  - default
  - name: eve
    shell: /bin/bash
    groups: [adm]
write_files:
  - path: /etc/of-the-project
    content: |
      written – so: ä
runcmd:
  - [sh, -c, "echo $(hostname) >>/root/ran"]
timezone: Europe/Lisbon
`
	merged = "#cloud-config-archive\r\n" + `
- type: text/cloud-config
  content: |
    merge_how: dict(replace)+list()+str()
    users: [{name: eve}]
    write_files: [{path: /etc/of-the-project, content: "written\n"}]
` + "    hostname: evil\n    disable_root: true\n    ssh_pwauth: true\n    ssh_keys: {ed25519_private: evil, ed25519_public: evil}\n" + `
- |
  #!/bin/sh
  hostname >>/root/ran
`
)

// debianGuest builds the guest by what mage guest:debian runs. It is skipped
// where that cannot be, and fails there when real guests are required.
func debianGuest(t *testing.T) string {
	t.Helper()
	required := os.Getenv("CASTRA_TEST_REQUIRE_QEMU") == "1"
	if required {
		require.NoError(t, setup.Ensure(t.Context(), os.Stderr, setup.Debian()...))
	}
	home, err := debian.Home()
	require.NoError(t, err)
	g, err := debian.Ensure(t.Context(), home, os.Stderr)
	var host *debian.HostError
	if errors.As(err, &host) && !required {
		t.Skipf("%v; %s", err, host.Hint())
	}
	require.NoError(t, err)
	if out, err := exec.Command("qemu-img", "check", "-q", g.Disk).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img check %s: %v\n%s", g.Disk, err, out)
	}
	return g.Disk
}

// hostKeys are what the session has pinned, by VM.
func (p *project) hostKeys() map[string]string {
	p.t.Helper()
	data, err := os.ReadFile(p.state("metadata", "session.json"))
	require.NoError(p.t, err)
	var s struct {
		VMs map[string]struct {
			SSH struct {
				HostKey string `json:"host_key"`
			}
		}
	}
	require.NoError(p.t, json.Unmarshal(data, &s))
	keys := map[string]string{}
	for name, vm := range s.VMs {
		keys[name] = strings.Join(strings.Fields(vm.SSH.HostKey)[:2], " ")
	}
	return keys
}

// slowly is must with the time that a whole system takes under emulation on a
// busy computer; 40 s each are usual.
func (p *project) slowly(args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*verbLimit)
	defer cancel()
	cmd, stdout, stderr := p.command(ctx, args...)
	require.NoError(p.t, cmd.Run(), "%s%s", stdout, stderr)
}

// inside runs a line in a guest and gives what it printed.
func (p *project) inside(vm, line string) string {
	p.t.Helper()
	return strings.TrimSpace(p.must("exec", vm, line).stdout)
}

// configured asserts what holds of any guest that cloud-init has configured by
// our seed, whatever the project adds.
func (p *project) configured(vm, user string) {
	p.t.Helper()
	p.inside(vm, "sudo cloud-init status --wait >/dev/null || true")
	status := p.inside(vm, "sudo cloud-init status --long")
	require.Contains(p.t, status, "status: done", status)
	require.Empty(p.t, p.inside(vm, `sudo grep -E ' - [a-z_.]+\.py\[(WARNING|ERROR|CRITICAL)\]|Traceback' /var/log/cloud-init.log || true`))
	require.Contains(p.t, p.inside(vm, "cloud-id"), "nocloud")
	require.Equal(p.t, user, p.inside(vm, "id -un"))
	require.Equal(p.t, vm, p.inside(vm, "hostname"))
	require.Equal(p.t, vm, p.inside(vm, "cat /etc/hostname"))
	require.Equal(p.t, p.hostKeys()[vm], p.inside(vm, "sudo cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub"))
	require.Equal(p.t, "permitrootlogin without-password\npasswordauthentication no",
		p.inside(vm, "sudo sshd -T | grep -E '^(permitrootlogin|passwordauthentication)' | sort -r"))
	require.Equal(p.t, "running", p.inside(vm, "systemctl is-system-running --wait || true"), "%s", p.inside(vm, "systemctl --failed"))
	require.Equal(p.t, vm, p.inside(vm, "sudo cat /root/ran"), "the project's commands ran once, and after the name was set")
	require.Equal(p.t, "eve", p.inside(vm, "id -un eve"))
}

func TestCloudInit(t *testing.T) {
	needQEMU(t)
	disk := debianGuest(t)
	p := newProject(t, strings.ReplaceAll(debianVMs, "%q", strconv.Quote(disk)))
	p.write("user-data.yml", addition)
	p.write("archive.yml", merged)
	p.slowly("up")

	p.configured("first-0", "root")
	require.Equal(t, "written – so: ä", p.inside("first-0", "cat /etc/of-the-project"))
	require.Equal(t, "eve adm", p.inside("first-0", "id -nG eve"))
	require.Contains(t, p.inside("first-0", "readlink /etc/localtime"), "Lisbon")
	require.Equal(t, "debian", p.inside("first-0", "id -un debian"), "the image's own user")
	require.Equal(t, "1", p.inside("first-0", "grep -c of-the-project /root/.ssh/authorized_keys"))
	var size int64
	require.NoError(t, json.Unmarshal([]byte(p.inside("first-0", "df -B1 --output=size / | tail -n 1")), &size))
	require.Greater(t, size, int64(3600<<20), "the root file system has grown to the disk")

	p.configured("second-0", "dev")
	require.Equal(t, "0", p.inside("second-0", "sudo -n id -u"))
	require.Equal(t, "written", p.inside("second-0", "cat /etc/of-the-project"))
	p.slowly("down")
	p.cleanSlate()
}
