package e2e

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const oneVM = `
[[vms]]
name = "vm"
image = "small"
cpus = 1
memory = "256 MiB"
`

// A script that fails leaves its VM up to be looked at, tells its last lines,
// and does not touch the other VM; the next up runs it again.
func TestBootstrapFails(t *testing.T) {
	p := newProject(t, oneVM+"[vms.bootstrap]\nscript = \"bad.sh\"\n\n[[vms]]\nname = \"good\"\nimage = \"small\"\ncpus = 1\nmemory = 256\n[vms.bootstrap]\nscript = \"good.sh\"\n")
	p.write("bad.sh", "#!/bin/sh\necho about to fail\necho the cause >&2\nexit 3\n")
	p.write("good.sh", "#!/bin/sh\ntouch /done\n")

	r := p.mage("up")
	require.Equal(t, 70, r.status, r)
	require.Contains(t, r.stderr, "vm-0")
	require.Contains(t, r.stderr, "the cause")
	require.Contains(t, r.stderr, "3")
	vms := p.status()
	require.Equal(t, "running", vms["vm-0"].State)
	require.Equal(t, "failed", vms["vm-0"].Bootstrap)
	require.Equal(t, "applied", vms["good-0"].Bootstrap)
	logs, err := os.ReadDir(p.state("logs", "bootstrap"))
	require.NoError(t, err)
	require.Len(t, logs, 2, "a failed run leaves its log too")

	p.write("bad.sh", "#!/bin/sh\necho Castra:noop\n")
	p.must("up")
	require.Equal(t, "noop", p.status()["vm-0"].Bootstrap)
}

// A disk with nothing on it never answers: the wait is bounded, the serial
// port's last lines are shown, nothing is left.
func TestGuestNeverAnswers(t *testing.T) {
	p := newProject(t, "")
	img, err := exec.LookPath("qemu-img")
	require.NoError(t, err)
	require.NoError(t, exec.Command(img, "create", "-q", "-f", "qcow2", p.dir+"/blank.qcow2", "16M").Run())
	p.config("[[vms]]\nname = \"blank\"\nbase_image = \"blank.qcow2\"\ncpus = 1\nmemory = 128\n[vms.bootstrap]\nhandshake_timeout_secs = 2\n")

	r := p.mage("up")
	require.NotZero(t, r.status)
	require.Contains(t, r.stderr, "blank-0")
	require.Contains(t, r.stderr, "no SSH")
	require.Contains(t, r.stderr, "serial.log")
	p.cleanSlate()
	p.must("down")
}

// Ctrl-C while the guest boots: nothing that this run started runs on.
func TestInterruptDuringBoot(t *testing.T) {
	p := newProject(t, oneVM)
	p.must("plan")
	cmd, _, stderr := p.command(context.Background(), "up")
	require.NoError(t, cmd.Start())
	p.eventually("QEMU runs", func() bool { return len(p.qemus()) == 1 && held(p) })
	require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
	require.Error(t, cmd.Wait())
	p.eventually("QEMU has ended", func() bool { return len(p.qemus()) == 0 })
	p.cleanSlate()
	require.NotContains(t, stderr.String(), "cleanup timeout exceeded")
	require.Equal(t, "stopped", p.status()["vm-0"].State)
}

// held tells that QEMU has its pidfile, so that up is past the launch.
func held(p *project) bool {
	b, err := os.ReadFile(p.state("vm-0.pid"))
	return err == nil && len(b) > 1
}

// The same up twice at once: both succeed, and there is one VM.
func TestSameUpTwice(t *testing.T) {
	p := newProject(t, oneVM)
	first, _, out1 := p.command(context.Background(), "up")
	second, _, out2 := p.command(context.Background(), "up")
	require.NoError(t, first.Start())
	require.NoError(t, second.Start())
	require.NoError(t, first.Wait(), out1)
	require.NoError(t, second.Wait(), out2)
	require.Len(t, p.qemus(), 1)
	require.Contains(t, out1.String()+out2.String(), "mage up", "the one that waits is told who holds the workspace")
	require.Equal(t, "running", p.status()["vm-0"].State)
}

// kill -9 of mage during up: down ends what it left, and up works again; and
// without the down, the next up sees the VM through.
func TestKilledUp(t *testing.T) {
	p := newProject(t, oneVM)
	kill := func() {
		cmd, _, _ := p.command(context.Background(), "up")
		require.NoError(t, cmd.Start())
		p.eventually("QEMU runs", func() bool { return len(p.qemus()) == 1 && held(p) })
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
	}
	kill()
	// QEMU opens its monitor a little after it has taken its pidfile.
	p.eventually("it boots", func() bool { return p.status()["vm-0"].State == "booting" })
	p.must("down")
	p.cleanSlate()

	kill()
	p.must("up")
	require.Equal(t, "running", p.status()["vm-0"].State)
	require.Equal(t, "root\n", p.must("exec", "vm", "whoami").stdout)
}

// QEMU killed from outside: status says so, the next up starts afresh.
func TestCrashedVM(t *testing.T) {
	p := newProject(t, oneVM)
	p.must("up")
	pid := p.status()["vm-0"].PID
	require.Contains(t, p.qemus(), pid)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	p.eventually("QEMU has ended", func() bool { return len(p.qemus()) == 0 })
	// Of a process that dies, the first thread goes before those that hold its locks.
	p.eventually("status says that it has crashed", func() bool { return p.status()["vm-0"].State == "crashed" })
	p.must("up")
	require.Equal(t, "running", p.status()["vm-0"].State)
}

// A paused guest cannot heed the power button: down tells QEMU to quit.
func TestPausedGuest(t *testing.T) {
	p := newProject(t, oneVM)
	p.must("up")
	pause(t, p.state("vm-0.qmp"))
	require.Equal(t, "paused", p.status()["vm-0"].State)
	r := p.mage("up")
	require.NotZero(t, r.status)
	require.Contains(t, r.stderr, "paused")
	p.must("down")
	p.cleanSlate()
	require.Empty(t, p.events("vm.escalated"))
}

func pause(t *testing.T, socket string) {
	conn, err := net.DialTimeout("unix", socket, 5*time.Second)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	dec := json.NewDecoder(conn)
	for _, command := range []string{"qmp_capabilities", "stop"} {
		var reply map[string]any
		require.NoError(t, dec.Decode(&reply))
		_, err := conn.Write([]byte(`{"execute":"` + command + `"}` + "\n"))
		require.NoError(t, err)
	}
	for { // STOP's event may come before its reply
		var reply map[string]any
		require.NoError(t, dec.Decode(&reply))
		if _, ok := reply["return"]; ok {
			return
		}
	}
}

// A configuration changed under a running VM is an error that names the
// difference; put back, up is content again.
func TestChangedConfiguration(t *testing.T) {
	p := newProject(t, oneVM)
	p.must("up")
	p.config(strings.Replace(oneVM, "cpus = 1", "cpus = 2", 1))
	r := p.mage("up")
	require.Equal(t, 65, r.status, r)
	require.Contains(t, r.stderr, "cpus: runs with 1, castra.toml says 2")
	p.write("castra.toml", "version = \n[[vms")
	require.Equal(t, "running", p.status()["vm-0"].State, "the record tells what runs")
	p.must("down")
	p.cleanSlate()
}
