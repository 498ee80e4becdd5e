package small

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/seed"
)

// bootLimit is for an emulated guest on a busy host; an idle one needs 3 s.
const bootLimit = 2 * time.Minute

// hardware is what a test boots on: a QEMU, and how the guest is started there.
type hardware struct {
	machine  string   // of qemu-system-x86_64, or "virt" of qemu-system-aarch64
	directly bool     // kernel and initrd from files instead of firmware
	uefi     []string // firmware for code and for variables; none: BIOS
	disk     string   // size of the overlay; "": the image's
}

func (h hardware) system() string {
	if h.machine == "virt" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// firmware returns the first pair of the files that distributions ship, or skips.
func firmware(t *testing.T, pairs ...[]string) []string {
	t.Helper()
	for _, pair := range pairs {
		if _, err := os.Stat(pair[0]); err == nil {
			return pair
		}
	}
	t.Skipf("no UEFI firmware on this host, looked for %v", pairs)
	return nil
}

func (h hardware) args(t *testing.T, g Guest, dir string) []string {
	t.Helper()
	args := []string{"-machine", h.machine, "-accel", "tcg"}
	if h.machine == "virt" {
		args = append(args, "-cpu", "max")
	}
	if len(h.uefi) == 2 {
		vars := filepath.Join(dir, "vars.fd")
		data, err := os.ReadFile(h.uefi[1])
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(vars, data, 0o600))
		args = append(args, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+h.uefi[0], "-drive", "if=pflash,unit=1,format=raw,file="+vars)
	}
	if h.directly {
		args = append(args, "-kernel", g.Kernel, "-initrd", g.Initrd, "-append", g.Append)
	}
	return args
}

// vm is a real QEMU with the small guest in it.
type vm struct {
	t       *testing.T
	dir     string
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	ended   chan struct{}
	monitor net.Conn
	answers *json.Decoder
}

// boot launches the guest with devices as Castra attaches them.
func boot(t *testing.T, g Guest, h hardware, seedDevice ...string) *vm {
	t.Helper()
	qemu, err := exec.LookPath(h.system())
	if err != nil {
		t.Skipf("no %s on this host", h.system())
	}
	v := &vm{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	overlay := filepath.Join(v.dir, "overlay.qcow2")
	create := []string{"create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", g.Disk, overlay}
	if h.disk != "" {
		create = append(create, h.disk)
	}
	out, err := exec.Command("qemu-img", create...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-smp", "2", "-m", "512", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-serial", "file:" + filepath.Join(v.dir, "serial.log"),
		"-qmp", "unix:" + filepath.Join(v.dir, "qmp") + ",server=on,wait=off",
		"-drive", "if=none,id=overlay,format=qcow2,file=" + overlay, "-device", "virtio-blk-pci,drive=overlay",
		"-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
	}
	args = append(args, h.args(t, g, v.dir)...)
	v.cmd = exec.Command(qemu, append(args, seedDevice...)...)
	v.cmd.Stderr = &v.stderr
	require.NoError(t, v.cmd.Start())
	go func() { _ = v.cmd.Wait(); close(v.ended) }()
	t.Cleanup(v.stop)
	v.connect()
	return v
}

func (v *vm) stop() {
	_ = v.cmd.Process.Kill()
	<-v.ended
	if v.monitor != nil {
		v.monitor.Close()
	}
	if v.t.Failed() {
		v.t.Logf("%s\nQEMU: %s\nserial:\n%s", strings.Join(v.cmd.Args, " "), v.stderr.String(), v.serial())
	}
}

func (v *vm) serial() string {
	text, err := os.ReadFile(filepath.Join(v.dir, "serial.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (v *vm) connect() {
	v.t.Helper()
	require.Eventually(v.t, func() bool {
		var err error
		v.monitor, err = net.Dial("unix", filepath.Join(v.dir, "qmp"))
		return err == nil
	}, bootLimit, 20*time.Millisecond, "no monitor")
	require.NoError(v.t, v.monitor.SetDeadline(time.Now().Add(2*bootLimit)))
	v.answers = json.NewDecoder(v.monitor)
	var greeting struct{ QMP any }
	require.NoError(v.t, v.answers.Decode(&greeting))
	v.execute("qmp_capabilities", map[string]any{})
}

// execute returns what the monitor answers, past the events on the way.
func (v *vm) execute(command string, args map[string]any) any {
	v.t.Helper()
	require.NoError(v.t, json.NewEncoder(v.monitor).Encode(map[string]any{"execute": command, "arguments": args}))
	for {
		var answer struct {
			Event         string
			Return, Error any
		}
		require.NoError(v.t, v.answers.Decode(&answer))
		if answer.Event == "" {
			require.Nil(v.t, answer.Error)
			return answer.Return
		}
	}
}

var hostForward = regexp.MustCompile(`127\.0\.0\.1\s+(\d+)\s+\S+\s+22\b`)

// sshAddr asks QEMU which port it chose.
func (v *vm) sshAddr() string {
	v.t.Helper()
	text := fmt.Sprint(v.execute("human-monitor-command", map[string]any{"command-line": "info usernet"}))
	found := hostForward.FindStringSubmatch(text)
	require.NotNil(v.t, found, text)
	return "127.0.0.1:" + found[1]
}

func (v *vm) waitSerial(line string) {
	v.t.Helper()
	require.Eventually(v.t, func() bool { return strings.Contains(v.serial(), line) }, bootLimit, 50*time.Millisecond, "serial never said %q", line)
}

// powerdown presses the button; the guest must end QEMU by itself.
func (v *vm) powerdown() {
	v.t.Helper()
	v.execute("system_powerdown", map[string]any{})
	select {
	case <-v.ended:
	case <-time.After(bootLimit):
		require.Fail(v.t, "still running after the power button")
	}
	require.True(v.t, v.cmd.ProcessState.Success(), v.cmd.ProcessState.String())
	require.Contains(v.t, v.serial(), "castra-guest: powering off")
}

// newSeed writes a seed for web-0 and returns its file with the login it allows.
func newSeed(t *testing.T, user string) (string, guest.Login) {
	t.Helper()
	login, err := seed.NewKey("test")
	require.NoError(t, err)
	host, err := seed.NewKey("host")
	require.NoError(t, err)
	s := seed.Seed{InstanceID: "web-0-1", Hostname: "web-0", User: user, AuthorizedKeys: []string{login.Public}, HostKey: host}
	file := filepath.Join(t.TempDir(), "seed.iso")
	require.NoError(t, s.Write(file))
	return file, guest.Login{User: user, PrivateKey: login.Private, HostKey: host.Public}
}

func run(t *testing.T, c *guest.Client, line string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, c.Run(t.Context(), guest.Command{Line: line, Stdout: &out, Stderr: &out}), "%s: %s", line, &out)
	return strings.TrimSpace(out.String())
}

func TestBoot(t *testing.T) {
	g := builtGuest(t)
	cdrom := func(file string) []string {
		return []string{"-drive", "if=none,id=seed,format=raw,media=cdrom,readonly=on,file=" + file, "-device", "ide-cd,drive=seed"}
	}
	tests := []struct {
		name, user string
		hardware   hardware
		attach     func(file string) []string
	}{
		{"direct q35", "root", hardware{machine: "q35", directly: true}, virtioSeed},
		{"direct pc", "dev", hardware{machine: "pc", directly: true}, virtioSeed},
		{"bios q35", "dev", hardware{machine: "q35"}, virtioSeed},
		{"bios pc with a CD drive", "root", hardware{machine: "pc"}, cdrom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { bootAndUse(t, g, tt.hardware, tt.user, tt.attach) })
	}
	t.Run("uefi q35", func(t *testing.T) {
		code := firmware(t, []string{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
			[]string{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"})
		bootAndUse(t, g, hardware{machine: "q35", uefi: code}, "root", virtioSeed)
	})
}

// The guest of the other architecture, through UEFI: the loader, the kernel's ACPI and all that a direct boot has too, but for the
// button.
func TestBootARM64(t *testing.T) {
	g := builtARM64(t)
	code := firmware(t, []string{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"})
	bootAndUse(t, g, hardware{machine: "virt", uefi: code}, "root", virtioSeed)
}

// Without firmware a device tree describes the machine, so the power button is another.
func TestBootARM64Directly(t *testing.T) {
	bootAndUse(t, builtARM64(t), hardware{machine: "virt", directly: true}, "dev", virtioSeed)
}

func virtioSeed(file string) []string {
	return []string{"-drive", "if=none,id=seed,format=raw,readonly=on,file=" + file, "-device", "virtio-blk-pci,drive=seed"}
}

// bootAndUse boots to a login with the seed's key, looks round and presses the power button.
func bootAndUse(t *testing.T, g Guest, h hardware, user string, attach func(file string) []string) {
	t.Helper()
	file, login := newSeed(t, user)
	launched := time.Now()
	v := boot(t, g, h, attach(file)...)
	login.Addr = v.sshAddr()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	c, err := guest.Wait(ctx, login, nil)
	require.NoError(t, err)
	defer c.Close()
	t.Logf("%s after launch: logged in", time.Since(launched).Round(time.Millisecond))
	for _, line := range []string{"seed found (hostname web-0)", "network 10.0.2.15", "ssh ready"} {
		v.waitSerial("castra-guest: " + line)
	}
	checkInside(t, c, user)
	pressed := time.Now()
	v.powerdown()
	t.Logf("%s after the power button: ended", time.Since(pressed).Round(time.Millisecond))
	for _, trouble := range []string{"insmod:", "EXT4-fs error", "did not grow", "no power button", "can't open", "can't create", "not found"} {
		require.NotContains(t, v.serial(), trouble)
	}
}

// rootSize is the root file system's size in KiB: 256 MiB in the image.
const rootSize = "df -k / | while read -r _ size _ _ _ at; do [ \"$at\" != / ] || echo \"$size\"; done"

func checkInside(t *testing.T, c *guest.Client, user string) {
	t.Helper()
	require.Equal(t, user, run(t, c, "id -un"))
	require.Equal(t, "web-0", run(t, c, "hostname"))
	require.Contains(t, run(t, c, "cat /etc/os-release"), "ID=castra-small\n")
	require.Equal(t, "ok", run(t, c, "cd && echo ok >file && cat file && rm file"))
	require.Equal(t, "ok", run(t, c, "echo ok >/tmp/file && cat /tmp/file"))
	require.Len(t, run(t, c, rootSize), 6, "the disk is as large as the image")
	clock, err := strconv.ParseInt(run(t, c, "date +%s"), 10, 64)
	require.NoError(t, err)
	require.InDelta(t, time.Now().Unix(), clock, 24*60*60, "the guest has the date from its machine")
	require.Equal(t, "root 1777", run(t, c, "stat -c '%U %a' /tmp"))
	require.Empty(t, run(t, c, "find /bin /etc /lib /root /sbin /usr -prune ! -user root"), "the tree belongs to root")
	for _, applet := range []string{"httpd", "wget", "tar", "sha256sum", "nc", "gzip", "base64"} {
		require.NotEmpty(t, run(t, c, "command -v "+applet))
	}
	if user == "root" {
		require.Empty(t, run(t, c, "find / -xdev ! -user root"))
		require.Equal(t, "served", run(t, c, "mkdir /srv/w && echo served >/srv/w/x && httpd -p 8080 -h /srv/w && wget -qO- http://127.0.0.1:8080/x"))
	}
}

// The root file system takes what a larger disk has, and stays so. It is clean after the power button: what was written is there,
// and no recovery runs.
func TestRestart(t *testing.T) {
	g := builtGuest(t)
	file, login := newSeed(t, "root")
	first := boot(t, g, hardware{machine: "q35", directly: true, disk: "3G"}, virtioSeed(file)...)
	login.Addr = first.sshAddr()
	c, err := guest.Wait(t.Context(), login, nil)
	require.NoError(t, err)
	run(t, c, "echo kept >/root/file")
	size := run(t, c, rootSize)
	kib, err := strconv.Atoi(size)
	require.NoError(t, err)
	require.Greater(t, kib, 2_800_000, "of 3 GiB")
	run(t, c, "dd if=/dev/zero of=/root/large bs=1M count=400 2>/dev/null && sync && rm /root/large")
	c.Close()
	first.powerdown()

	again := g
	again.Disk = filepath.Join(first.dir, "overlay.qcow2")
	second := boot(t, again, hardware{machine: "q35", directly: true}, virtioSeed(file)...)
	login.Addr = second.sshAddr()
	c, err = guest.Wait(t.Context(), login, nil)
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, "kept", run(t, c, "cat /root/file"))
	require.Equal(t, size, run(t, c, rootSize))
	require.Equal(t, "1", run(t, c, "wc -l </root/.ssh/authorized_keys"))
	require.Empty(t, run(t, c, "dmesg | grep -i 'recovery complete' || true"))
	second.powerdown()
}

// Without a seed the guest boots, says so, and lets nobody in.
func TestBootWithoutSeed(t *testing.T) {
	g := builtGuest(t)
	v := boot(t, g, hardware{machine: "q35"})
	v.waitSerial("castra-guest: no seed: nobody can log in")
	v.waitSerial("castra-guest: ssh ready")
	key, err := seed.NewKey("nobody")
	require.NoError(t, err)
	_, err = guest.Dial(t.Context(), guest.Login{Addr: v.sshAddr(), User: "root", PrivateKey: key.Private, HostKey: key.Public})
	require.Error(t, err)
	v.powerdown()
}
