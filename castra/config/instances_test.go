package config

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInstances(t *testing.T) {
	p := load(t, head+`[[vms]]
name = "web"
count = 4
description = "front"
image = "small"
overlay = ".castra/web.qcow2"
cpus = 3
port_forwards = [{ host = 8080, guest = 80 }]

[[vms.instances]]
id = "web-2"
description = ""
base_image = "disk.qcow2"
overlay = "own.qcow2"
cpus = 1
memory = "1 GiB"
port_forwards = [{ host = 8082, guest = 80 }]

[[vms.instances]]
id = "web-0"
port_forwards = [{ host = 8080, guest = 22, host_ip = "127.0.0.2" }]

[[vms.instances]]
id = "web-3"
port_forwards = []
`, "disk.qcow2")
	ssh := Forward{HostIP: "127.0.0.1", GuestPort: 22, Protocol: "tcp"}
	want := VM{
		Name: "web-1", Role: "web", Index: 1, Description: "front", Image: "small", Overlay: ".castra/web-1.qcow2", CPUs: 3, MemoryMiB: 2048,
		Network: "user", Warm: true, Line: 4, Forwards: []Forward{{HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80, Protocol: "tcp", Line: 11}, ssh},
		SSH: SSH{Port: 22}, Bootstrap: p.VMs[1].Bootstrap,
	}
	require.Equal(t, want, p.VMs[1], "one replica alone has the port of its role")
	require.Equal(t, "web-0", p.VMs[0].Name)
	require.Equal(t, []Forward{{HostIP: "127.0.0.2", HostPort: 8080, GuestPort: 22, Protocol: "tcp", Line: 24}}, p.VMs[0].Forwards)
	require.Equal(t, 3, p.VMs[0].CPUs)
	require.Equal(t, []Forward{ssh}, p.VMs[3].Forwards)

	want.Name, want.Index, want.Description, want.Image, want.CPUs, want.MemoryMiB = "web-2", 2, "", "", 1, 1024
	want.BaseImage, want.Overlay = filepath.Join(p.Dir, "disk.qcow2"), filepath.Join(p.Dir, "own.qcow2")
	want.Forwards = []Forward{{HostIP: "127.0.0.1", HostPort: 8082, GuestPort: 80, Protocol: "tcp", Line: 20}, ssh}
	require.Equal(t, want, p.VMs[2])
}

// TestConflictsAllAtOnce is failure 49: every conflict of ports in one file.
func TestConflictsAllAtOnce(t *testing.T) {
	got := refused(t, head+`[[vms]]
name = "a"
port_forwards = [{ host = 2222, guest = 22 }, { host = 2222, guest = 80 }]
[[vms]]
name = "b"
port_forwards = [{ host = 2222, guest = 22, host_ip = "0.0.0.0" }]
[[vms]]
name = "c"
count = 3
port_forwards = [{ host = 3333, guest = 22 }]
[[vms.instances]]
id = "c-1"
port_forwards = [{ host = 4444, guest = 22 }]
[[vms]]
name = "d"
count = 2
[[vms.instances]]
id = "d-0"
port_forwards = [{ host = 4444, guest = 22 }]
[[vms.instances]]
id = "d-1"
port_forwards = [{ host = 4444, guest = 22 }]
`)
	for _, want := range []string{
		":6: vms[0].port_forwards[1].host: tcp port 2222 is taken by vms[0].port_forwards[0] on line 6",
		":9: vms[1].port_forwards[0].host: tcp port 2222 is taken by vms[0].port_forwards[0] on line 6",
		":13: vms[2].port_forwards[0].host: 2 replicas cannot share port 3333",
		":22: vms[3].instances[0].port_forwards[0].host: tcp port 4444 is taken by vms[2].instances[0].port_forwards[0] on line 16",
		":25: vms[3].instances[1].port_forwards[0].host: tcp port 4444 is taken by vms[3].instances[0].port_forwards[0] on line 22",
	} {
		require.Contains(t, got, want)
	}
}

// TestOverlaysOfInstances is failure 35, after expansion and through links.
func TestOverlaysOfInstances(t *testing.T) {
	two := func(a, b string) string {
		return head + web + "count = 2\n[[vms.instances]]\nid = \"web-0\"\n" + a + "\n[[vms.instances]]\nid = \"web-1\"\n" + b + "\n"
	}
	require.Empty(t, refused(t, two(`overlay = "a.qcow2"`, `overlay = "b.qcow2"`)))
	require.Empty(t, refused(t, two(`base_image = "disk.qcow2"`, `base_image = "disk.qcow2"`), "disk.qcow2"))
	require.Contains(t, refused(t, two(`overlay = "a.qcow2"`, `overlay = "./x/../a.qcow2"`)), ":12: vms[0].instances[1].overlay: a.qcow2 is the overlay of vms[0].instances[0] on line 7 too")
	require.Contains(t, refused(t, two(`base_image = "disk.qcow2"`, `overlay = "disk.qcow2"`), "disk.qcow2"), "is the base image of vms[0].instances[0] on line 7, and down would delete it")
	require.Contains(t, refused(t, head+web+"base_image = \"disk.qcow2\"\noverlay = \"disk.qcow2\"\n[[vms.instances]]\nid = \"web-0\"\ncpus = 1\n", "disk.qcow2"),
		":7: vms[0].overlay: disk.qcow2 is the base image of vms[0] on line 4", "not of the instance, which says nothing of it")
	require.Contains(t, refused(t, head+web+"bootstrap.script = \"run.sh\"\noverlay = \"bootstrap.toml\"\n", "run.sh"), "bootstrap.toml is the bootstrap.toml of vms[0]")
}

// TestBaseImagePaths is failure 32: absolute from the start, and known to be
// missing before anything is made.
func TestBaseImagePaths(t *testing.T) {
	p := load(t, head+web+"base_image = \"img/base.qcow2\"\n", "img/base.qcow2")
	require.Equal(t, filepath.Join(p.Dir, "img/base.qcow2"), p.VMs[0].BaseImage)
	for _, source := range []string{"base_image = \"img/base.qcow2\"\n", "[[vms.instances]]\nid = \"web-0\"\nbase_image = \"img/base.qcow2\"\n"} {
		file := write(t, head+web+source)
		_, err := Load(file)
		require.ErrorContains(t, err, "base_image: "+filepath.Join(filepath.Dir(file), "img/base.qcow2")+" does not exist")
	}
}
