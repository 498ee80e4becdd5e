package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const machines = `
[[vms]]
name = "uefi"
image = "small"
firmware = "uefi"
cpus = 1
memory = "256 MiB"
disk = "1 GiB"

[[vms]]
name = "arm"
image = "small"
arch = "aarch64"
cpus = 1
memory = "256 MiB"
`

// A guest that boots by UEFI from its own disk, which grows, and one of another architecture, by one up. The first is then
// restored as any other; its firmware's variables are its own each time.
func TestMachines(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("qemu-system-aarch64"); err != nil && os.Getenv("CASTRA_TEST_REQUIRE_QEMU") != "1" {
		t.Skip(err)
	}
	p := newProject(t, machines)
	for _, start := range []string{"cold", "ram"} {
		p.must("up")
		vms := p.status()
		require.Equal(t, start, vms["uefi-0"].Start, vms["uefi-0"].StartReason)
		require.Equal(t, "cold", vms["arm-0"].Start)
		require.Equal(t, "x86_64 efi\n", p.must("exec", "uefi", "echo $(uname -m) $(ls /sys/firmware | grep efi)").stdout)
		require.Equal(t, "aarch64\n", p.must("exec", "arm", "uname -m").stdout)
		size, err := strconv.Atoi(strings.TrimSpace(p.must("exec", "uefi", "df -k / | tail -1 | tr -s ' ' | cut -d ' ' -f 2").stdout))
		require.NoError(t, err)
		require.Greater(t, size, 900<<10, "KiB, of 1 GiB")
		require.FileExists(t, p.state("overlays", "uefi-0-vars.fd"))
		p.must("down")
		require.NoFileExists(t, p.state("overlays", "uefi-0-vars.fd"))
		p.cleanSlate()
	}
}
