package qemu

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

func defaultSpec() Spec {
	return Spec{
		Binary: "/usr/bin/qemu-system-x86_64", Dir: "/ws", Name: "web-0", UUID: "00000000-0000-8000-8000-000000000001",
		Machine: "q35", Accelerator: Accelerator{Name: "tcg"}, CPUs: 2, MemoryMiB: 2048,
		Overlay: "/ws/overlays/o.qcow2", Seed: "/ws/overlays/web-0-seed.iso",
		Forwards: []Forward{{"127.0.0.1", 0, 22, "tcp"}},
		Pidfile:  "/ws/web-0.pid", Monitor: "web-0.qmp", SerialLog: "/ws/logs/web-0-serial.log", Sandbox: true,
	}
}

func TestArgsGolden(t *testing.T) {
	full := defaultSpec()
	full.Accelerator = Accelerator{Name: "kvm"}
	full.Kernel, full.Initrd, full.Append = "/img/vmlinuz", "/img/initrd", "console=ttyS0 root=/dev/vda2"
	full.Forwards = append(full.Forwards, Forward{"0.0.0.0", 5353, 53, "udp"}, Forward{"127.0.0.1", 8080, 80, "tcp"})
	full.Restrict, full.CPU = true, "Nehalem,+aes,-x2apic"
	full.Dir, full.Overlay, full.SerialLog = "/a,b=on", "/a,b=on/o.qcow2", "/a,b=on/logs/s.log"
	for name, spec := range map[string]Spec{"default": defaultSpec(), "everything": full} {
		t.Run(name, func(t *testing.T) { requireGolden(t, "args-"+name, lines(spec)) })
	}
}

// Each accelerator with each architecture, by the machine's own firmware, UEFI and direct kernel boot.
func TestArgsOfMachinesGolden(t *testing.T) {
	for _, accel := range []string{"tcg", "kvm", "hvf"} {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(accel+" "+arch, func(t *testing.T) {
				s := defaultSpec()
				s.Arch, s.Machine, s.Accelerator.Name, s.Sandbox, s.GenerationID = arch, Machine(arch), accel, accel != "hvf", true
				uefi, kernel := s, s
				uefi.UEFI = UEFI{Code: "/fw/code,1.fd", Vars: "/ws/vars.qcow2", VarsFormat: "qcow2"}
				kernel.Kernel, kernel.Append = "/img/vmlinuz", "console="+Console(arch)
				requireGolden(t, "machine-"+accel+"-"+arch, "# bios\n"+lines(s)+"\n# uefi\n"+lines(uefi)+"\n# kernel\n"+lines(kernel))
			})
		}
	}
}

func lines(s Spec) string { return strings.Join(s.Args(), "\n") + "\n" }

func requireGolden(t *testing.T, name, got string) {
	t.Helper()
	golden := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestInterruptController(t *testing.T) {
	for _, c := range []struct {
		arch, machine, accel string
		cpus                 int
		want                 string
	}{
		{"amd64", q35, "kvm", 16, q35},
		{"", "q35", "tcg", 1, "q35"},
		{"arm64", "virt", "kvm", 2, "virt,gic-version=host"},
		{"arm64", "virt", "kvm", 16, "virt,gic-version=host"},
		{"arm64", "virt", "hvf", 8, "virt,gic-version=2"},
		{"arm64", "virt", "hvf", 9, "virt,gic-version=3"},
		{"arm64", "virt-7.2,highmem=off", "tcg", 9, "virt-7.2,highmem=off,gic-version=3"},
		{"arm64", "virt,gic-version=3,its=off", "tcg", 1, "virt,gic-version=3,its=off"},
		{"arm64", "sbsa-ref", "tcg", 4, "sbsa-ref"},
	} {
		s := Spec{Arch: c.arch, Machine: c.machine, Accelerator: Accelerator{Name: c.accel}, CPUs: c.cpus}
		require.Equal(t, c.want, after(s.Args(), "-machine"), c)
	}
}

// E2: whatever a path holds, QEMU reads back that path and no further option.
func TestArgsKeepOddPaths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := "/" + rapid.StringMatching(`[ -~]{1,40}`).Draw(t, "path")
		s := defaultSpec()
		s.Overlay, s.Monitor = path, path
		args := s.Args()
		monitor := slices.Index(args, "-mon") - 1
		var node struct{ File struct{ Filename string } }
		require.NoError(t, json.Unmarshal([]byte(after(args, "-blockdev")), &node))
		require.Equal(t, path, node.File.Filename)
		require.Equal(t, path, optionValue(args[monitor], "path"))
	})
}

func after(args []string, option string) string {
	for i, a := range args {
		if a == option {
			return args[i+1]
		}
	}
	return ""
}

// optionValue reads one value out of QEMU's option syntax, in which a doubled
// comma is a comma.
func optionValue(s, key string) string {
	const comma = "\x00"
	for part := range strings.SplitSeq(strings.ReplaceAll(s, ",,", comma), ",") {
		if v, ok := strings.CutPrefix(part, key+"="); ok {
			return strings.ReplaceAll(v, comma, ",")
		}
	}
	return ""
}

func TestForwardsListenOnLoopbackUnlessAsked(t *testing.T) {
	require.Equal(t, "user,id=net0,hostfwd=tcp:127.0.0.1:0-:22", after(defaultSpec().Args(), "-netdev"))
}

func TestParseUsernet(t *testing.T) {
	const text = "Hub -1 (net0):\r\n" +
		"  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[ESTABLISHED]   16       127.0.0.1 40000       10.0.2.15    22     0     0\r\n" +
		"  TCP[HOST_FORWARD]  14       127.0.0.1 37651       10.0.2.15    22     0     0\r\n" +
		"  UDP[HOST_FORWARD]  15               *  5353       10.0.2.15    53     0     0\r\n"
	got, err := parseUsernet(text)
	require.NoError(t, err)
	require.Equal(t, []Forward{{"127.0.0.1", 37651, 22, "tcp"}, {"0.0.0.0", 5353, 53, "udp"}}, got)

	_, err = parseUsernet("  TCP[HOST_FORWARD]  14  127.0.0.1 port  10.0.2.15 22 0 0\n")
	require.ErrorContains(t, err, "unknown line")
}
