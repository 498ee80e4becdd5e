package qemu

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/soak"
)

// exposureEnv is set in the process that has a network of its own.
const exposureEnv = "CASTRA_TEST_EXPOSURE"

// outward is an address of the network of its own that is not of loopback.
const outward = "10.77.0.1"

// F-6: in a network where nothing else is, every socket of QEMU is on loopback,
// of TCP and UDP, IPv4 and IPv6, but for those that were asked to be elsewhere.
// F-8: and its system calls are filtered, in every thread, whatever it runs.
func TestExposureSoak(t *testing.T) {
	realQEMU(t)
	if os.Getenv(exposureEnv) != "" {
		exposure(t)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestExposureSoak$", "-test.v")
	cmd.Env = append(os.Environ(), exposureEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Skipf("no network of its own here: %v", err)
	}
	t.Log(string(out))
	require.NoError(t, err)
}

// shape is one way to run a VM.
type shape struct {
	forwards []Forward
	change   func(t *testing.T, s *Spec)
	status   string
}

func exposure(t *testing.T) {
	bringUp(t)
	loopbackSSH := []Forward{{"127.0.0.1", 0, 22, "tcp"}}
	image := Image{Disk: filepath.Join(t.TempDir(), "disk")}
	image.RAM, image.State = filepath.Join(filepath.Dir(image.Disk), "ram"), filepath.Join(filepath.Dir(image.Disk), "state")
	shapes := []struct {
		name string
		shape
	}{
		{"nothing forwarded", shape{}},
		{"SSH", shape{forwards: loopbackSSH}},
		{"UDP", shape{forwards: []Forward{{"127.0.0.1", 0, 53, "udp"}}}},
		{"another address of loopback", shape{forwards: []Forward{{"127.0.0.2", 2222, 22, "tcp"}}}},
		{"one port for TCP and UDP", shape{forwards: []Forward{{"127.0.0.1", 5353, 53, "tcp"}, {"127.0.0.1", 5353, 53, "udp"}}}},
		{"many", shape{forwards: slices.Repeat([]Forward{{"127.0.0.1", 0, 80, "tcp"}, {"127.0.0.1", 0, 80, "udp"}}, 8)}},
		{"shut in", shape{forwards: loopbackSSH, change: func(_ *testing.T, s *Spec) { s.Restrict = true }}},
		{"everywhere, as asked", shape{forwards: []Forward{{"0.0.0.0", 0, 80, "tcp"}, {"127.0.0.1", 0, 22, "tcp"}}}},
		{"UDP everywhere, as asked", shape{forwards: []Forward{{"0.0.0.0", 0, 53, "udp"}}}},
		{"outward, as asked", shape{forwards: []Forward{{outward, 8080, 80, "tcp"}, {outward, 0, 53, "udp"}}}},
		{"CPUs, memory to share", shape{forwards: loopbackSSH, change: func(_ *testing.T, s *Spec) { s.CPUs, s.RAM.Shared, s.GenerationID = 2, true, true }}},
		{"restored", shape{forwards: loopbackSSH, status: "inmigrate", change: func(t *testing.T, s *Spec) {
			require.NoError(t, os.Remove(s.Overlay))
			require.NoError(t, os.Rename(image.Disk, s.Overlay))
			s.CPUs, s.GenerationID, s.RAM.File, s.State = 2, true, image.RAM, image.State
		}}},
		{"UEFI", shape{forwards: loopbackSSH, change: byUEFI("amd64")}},
		{"arm64", shape{forwards: loopbackSSH, change: byUEFI("arm64")}},
	}
	ran := 0
	for _, c := range shapes {
		t.Run(c.name, func(t *testing.T) {
			var spec Spec
			status := c.status
			if status == "" {
				status = "running"
			}
			target := launched(t, realQEMU(t), status, func(s *Spec) {
				s.Forwards = c.forwards
				if c.change != nil {
					c.change(t, s)
				}
				spec = *s
			})
			inForce, err := Forwards(t.Context(), target)
			require.NoError(t, err)
			if spec.State != "" {
				inForce, err = Restore(t.Context(), target, "")
				require.NoError(t, err)
			}
			if spec.RAM.Shared {
				require.NoError(t, Save(t.Context(), target, spec.Overlay, image, 0))
			}
			requireExposed(t, target, c.forwards, inForce)
			requireConfined(t, Inspect(t.Context(), target).PID)
			ran++
		})
	}
	soak.AtLeast(t, "F-6", "configurations whose sockets were all where they should be, in a network of their own", 12, float64(ran))
	soak.AtLeast(t, "F-8", "shapes of VMs with Seccomp 2 and NoNewPrivs 1 in every thread", 12, float64(ran))
}

func byUEFI(arch string) func(*testing.T, *Spec) {
	return func(t *testing.T, s *Spec) {
		binary, template := realUEFI(t, arch)
		s.Binary, s.Arch, s.Machine, s.MemoryMiB, s.UEFI = binary, arch, Machine(arch), 128, template
		s.UEFI.Vars = filepath.Join(s.Dir, "vars")
		require.NoError(t, MakeVars(template.Vars, s.UEFI.Vars))
	}
}

// requireExposed holds the sockets of QEMU against the forwards asked for.
func requireExposed(t *testing.T, target Target, asked, inForce []Forward) {
	t.Helper()
	require.Len(t, inForce, len(asked))
	var want []string
	for i, f := range inForce {
		require.Equal(t, asked[i].HostIP, f.HostIP)
		want = append(want, fmt.Sprintf("%s %s:%d", f.Protocol, f.HostIP, f.HostPort))
	}
	bound := sockets(t, Inspect(t.Context(), target).PID)
	require.ElementsMatch(t, want, bound)
}

// requireConfined looks at each thread.
func requireConfined(t *testing.T, pid int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	require.NoError(t, err)
	require.NotEmpty(t, tasks)
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		require.NoError(t, err)
		require.Regexp(t, `(?m)^Seccomp:\s+2$`, string(status), task)
		require.Regexp(t, `(?m)^NoNewPrivs:\s+1$`, string(status), task)
	}
}

// sockets are those of a process that anybody can send to, as
// "tcp 127.0.0.1:22". The names of the kernel's tables are those of protocols.
func sockets(t *testing.T, pid int) []string {
	t.Helper()
	open := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	require.NoError(t, err)
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			open[to] = true
		}
	}
	var bound []string
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // the kernel has no such protocol
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Fields(s.Text())
			const established = "01"
			if !open["socket:["+fields[9]+"]"] || strings.HasPrefix(table, "tcp") && fields[3] == established {
				continue
			}
			bound = append(bound, table+" "+addressOf(t, fields[1]))
		}
		f.Close()
	}
	return bound
}

// addressOf reads an address of the kernel's tables on a little-endian machine.
func addressOf(t *testing.T, s string) string {
	t.Helper()
	addr, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(addr)
	require.NoError(t, err)
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	n, err := strconv.ParseUint(port, 16, 16)
	require.NoError(t, err)
	return net.JoinHostPort(net.IP(raw).String(), strconv.FormatUint(n, 10))
}

// bringUp makes the network of this process usable: loopback, and an address
// beyond it.
func bringUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	up, err := unix.NewIfreq("lo")
	require.NoError(t, err)
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	require.NoError(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up))
	more, err := unix.NewIfreq("lo:1") // a network card would need a module that not every kernel has
	require.NoError(t, err)
	require.NoError(t, more.SetInet4Addr(net.ParseIP(outward).To4()))
	require.NoError(t, unix.IoctlIfreq(fd, unix.SIOCSIFADDR, more))
	l, err := net.Listen("tcp", outward+":0")
	require.NoError(t, err)
	l.Close()
}
