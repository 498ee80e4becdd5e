package qemu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

// What castra.toml may say of these (package config).
var (
	vmName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?-[0-9]{1,2}$`)
	cpuName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._,+=-]{0,63}$`)
	machine = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+=-]{0,63}$`)
)

// E2: whatever names and paths a Spec has, QEMU reads back these, and no option besides those that Castra means to give.
func FuzzQemuArgs(f *testing.F) {
	f.Add("web-0", "/ws", "/img/vmlinuz", "console=ttyS0", "max", "q35", "127.0.0.1", uint32(8080<<16|80), uint16(0xffff))
	f.Add("a-63", "/x,debug-threads=on/y,,z", "/k,append=x", "-incoming tcp:0:4444", "Nehalem,+aes,-x2apic", "virt-7.2", "0.0.0.0", uint32(22), uint16(0))
	f.Add("b-1", "/new\nline \"'\\%s=,", "/-daemonize", "a,b\n,,c", "host", "pc", "127.0.0.2", uint32(65535<<16|65535), uint16(0x5555))
	f.Add("c-1", "/\u2028<&>\u00e9\x7f\x01", "/json:{}", "", "qemu64", "microvm", "10.0.0.1", uint32(1), uint16(0xaaaa))
	f.Fuzz(func(t *testing.T, name, dir, kernel, cmdline, cpu, machineName, hostIP string, ports uint32, bits uint16) {
		for _, s := range []string{name, dir, kernel, cmdline, cpu, machineName, hostIP} {
			if strings.ContainsRune(s, 0) {
				return // which no file and no command line holds
			}
		}
		ip, err := netip.ParseAddr(hostIP)
		if !vmName.MatchString(name) || !cpuName.MatchString(cpu) || !machine.MatchString(machineName) || err != nil || !ip.Is4() || !filepath.IsAbs(dir) || !filepath.IsAbs(kernel) {
			return
		}
		s := oddSpec(name, dir, kernel, cmdline, cpu, machineName, hostIP, ports, bits)
		if s.Check() != nil {
			return
		}
		read, err := readArgs(s.Args())
		require.NoError(t, err, "%q", s.Args())
		want := s
		want.Binary, want.Dir, want.GenerationID = "", "", s.GenerationID && s.arch() == "amd64"
		want.Machine, want.Arch, want.State = s.machine(), "", ""
		want.SerialLog = "" // it is opened for QEMU
		if s.State != "" {
			want.State = "defer"
		}
		require.Equal(t, want, read)
		for _, word := range s.Shape() {
			require.False(t, len(dir) > 12 && strings.Contains(word, dir), "a guest cannot tell where its disk lies: %q", word)
		}
	})
}

// E2: the real one reads them so too.
func TestRealQEMUTakesOddPathsSoak(t *testing.T) {
	names := []string{"comma,debug-threads=on", "new\nline \t", "quote's \"both\" \\n", "équals=on,,\u2028\U0001f4e6", "percent %s %n", "-daemonize", "dollar $HOME `id`",
		"json:{\"driver\":\"null\"}", "nbd:unix:x;&|<>#*?[a]{b}!~", "a\u202eb\u0085\x7f\x01", "file:fd:1", strings.Repeat("long", 60)}
	qemu, ran := realQEMU(t), 0
	for _, name := range names[:soak.N(3, len(names))] {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			require.NoError(t, os.Mkdir(dir, 0o700))
			target := launched(t, qemu, "running", func(s *Spec) {
				s.Dir, s.Overlay, s.Seed = dir, dir+"/o.qcow2", dir+"/seed"
				s.Pidfile, s.SerialLog = dir+"/vm.pid", dir+"/serial.log"
				qemutest.WriteImage(t, s.Overlay, 1<<20)
				require.NoError(t, os.WriteFile(s.Seed, make([]byte, 512), 0o600))
			})
			mon, err := openMonitor(t.Context(), target)
			require.NoError(t, err)
			defer mon.Close()
			var is struct{ Name string }
			require.NoError(t, mon.Execute(t.Context(), "query-name", nil, &is))
			require.Equal(t, "vm", is.Name)
			require.FileExists(t, dir+"/serial.log")
			entries, err := os.ReadDir(filepath.Dir(dir))
			require.NoError(t, err)
			require.Len(t, entries, 1, "nothing was made beside")
			ran++
		})
	}
	soak.AtLeast(t, "E2", "odd paths that real QEMU takes", 12, float64(ran))
}

func oddSpec(name, dir, kernel, cmdline, cpu, machineName, hostIP string, ports uint32, bits uint16) Spec {
	is := func(bit int) bool { return bits>>bit&1 == 1 }
	s := Spec{
		Binary: "/usr/bin/qemu", Dir: dir, Name: name, UUID: "00000000-0000-8000-8000-000000000001", Machine: machineName, CPU: cpu, CPUs: 1 + int(bits%16), MemoryMiB: 64,
		Accelerator: Accelerator{Name: "tcg"}, Overlay: dir + "/o.qcow2", Pidfile: dir + "/" + name + ".pid", Monitor: name + ".qmp", SerialLog: dir + "/logs/" + name + ".log",
		Restrict: is(0), Sandbox: is(1), GenerationID: is(2),
	}
	if is(3) {
		s.Arch = "arm64"
	}
	if is(4) {
		s.Seed = dir + "/seed.iso"
	}
	if is(5) {
		s.UEFI = UEFI{Code: dir + "/code.fd", Vars: dir + "/vars", CodeFormat: "raw", VarsFormat: "qcow2"}
	}
	if is(6) {
		s.Kernel, s.Append = kernel, cmdline
		if is(7) {
			s.Initrd = kernel + ".initrd"
		}
	}
	switch {
	case is(8):
		s.RAM.Shared = true
	case is(9):
		s.RAM.File = dir + "/ram"
	}
	if is(10) {
		s.State = dir + "/state"
	}
	for range int(bits>>11) % 4 {
		s.Forwards = append(s.Forwards, Forward{hostIP, int(ports >> 16), int(ports & 0xffff), []string{"tcp", "udp"}[len(s.Forwards)%2]})
	}
	return s
}

// readArgs reads a command line as QEMU does, and refuses every option that is not one of Castra's.
func readArgs(args []string) (s Spec, err error) {
	chardevs := map[string]map[string]string{}
	for len(args) > 0 {
		option := args[0]
		if option == "-nodefaults" || option == "-no-user-config" {
			args = args[1:]
			continue
		}
		if len(args) < 2 {
			return s, fmt.Errorf("%s has no value", option)
		}
		if err := readOption(&s, chardevs, option, args[1]); err != nil {
			return s, fmt.Errorf("%s %q: %w", option, args[1], err)
		}
		args = args[2:]
	}
	s.Monitor = chardevs["monitor0"]["path"]
	if len(chardevs) != 2 || len(chardevs["serial0"]) != 4 || len(chardevs["monitor0"]) != 5 || chardevs["serial0"]["path"] != "/dev/fdset/1" {
		return s, fmt.Errorf("character devices %q", chardevs)
	}
	return s, nil
}

func readOption(s *Spec, chardevs map[string]map[string]string, option, value string) (err error) {
	word := map[string]*string{"-uuid": &s.UUID, "-machine": &s.Machine, "-accel": &s.Accelerator.Name, "-cpu": &s.CPU, "-kernel": &s.Kernel, "-initrd": &s.Initrd,
		"-append": &s.Append, "-pidfile": &s.Pidfile, "-incoming": &s.State}[option]
	if word != nil {
		if *word != "" {
			return errors.New("given twice")
		}
		*word = value
		return nil
	}
	fixed := map[string]string{"-display": "none", "-serial": "chardev:serial0", "-mon": "chardev=monitor0,mode=control", "-add-fd": "fd=3,set=1",
		"-sandbox": "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}
	if want, known := fixed[option]; known {
		s.Sandbox = s.Sandbox || option == "-sandbox"
		return unless(value == want, "unknown value")
	}
	switch option {
	case "-name":
		fields, err := keyValues(value, "guest")
		s.Name = fields["guest"]
		return errors.Join(err, unless(len(fields) == 1, "more than a name"))
	case "-smp":
		s.CPUs, err = strconv.Atoi(value)
		return err
	case "-m":
		mib, ok := strings.CutSuffix(value, "M")
		s.MemoryMiB, err = strconv.Atoi(mib)
		return errors.Join(err, unless(ok, "no MiB"))
	case "-chardev":
		fields, err := keyValues(value, "backend")
		chardevs[fields["id"]] = fields
		return err
	case "-netdev":
		return readNetdev(s, value)
	case "-object", "-blockdev", "-device":
		return readJSON(s, option, value)
	}
	return errors.New("unknown option")
}

func unless(ok bool, problem string) error {
	if ok {
		return nil
	}
	return errors.New(problem)
}

// keyValues reads QEMU's option syntax (util/qemu-option.c): a comma ends a value, two are one, and a first word without a key has
// the implied one. Keys that come twice are refused here.
func keyValues(s, implied string) (map[string]string, error) {
	fields := map[string]string{}
	for first := true; first || s != ""; first = false {
		key, rest, found := strings.Cut(s, "=")
		if comma := strings.IndexByte(s, ','); !found || comma >= 0 && comma < len(key) {
			if !first {
				return nil, fmt.Errorf("%q has no key", s)
			}
			key, rest = implied, s
		}
		var value strings.Builder
		for rest != "" {
			if strings.HasPrefix(rest, ",,") {
				rest = rest[1:]
			} else if rest[0] == ',' {
				break
			}
			value.WriteByte(rest[0])
			rest = rest[1:]
		}
		if _, twice := fields[key]; twice {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		fields[key], s = value.String(), strings.TrimPrefix(rest, ",")
	}
	return fields, nil
}

func readNetdev(s *Spec, value string) error {
	words := strings.Split(value, ",")
	if len(words) < 2 || words[0] != "user" || words[1] != "id=net0" {
		return errors.New("no user network")
	}
	for _, word := range words[2:] {
		if word == "restrict=on" {
			s.Restrict = true
			continue
		}
		m := regexp.MustCompile(`^hostfwd=(tcp|udp):([0-9.]+):([0-9]+)-:([0-9]+)$`).FindStringSubmatch(word)
		if m == nil {
			return fmt.Errorf("%q is no rule", word)
		}
		host, _ := strconv.Atoi(m[3])
		guest, _ := strconv.Atoi(m[4])
		s.Forwards = append(s.Forwards, Forward{m[2], host, guest, m[1]})
	}
	return nil
}

// jsonOption is all that Castra gives as JSON.
type jsonOption struct {
	QOMType  string `json:"qom-type"`
	ID       string
	Size     int64
	Share    bool
	MemPath  string `json:"mem-path"`
	NodeName string `json:"node-name"`
	Driver   string
	ReadOnly bool `json:"read-only"`
	Discard  string
	File     struct{ Driver, Filename string }
	Drive    string
	Index    int `json:"bootindex"`
	Netdev   string
	ROM      *string `json:"romfile"`
	GUID     string
}

func readJSON(s *Spec, option, value string) error {
	var o jsonOption
	decoder := json.NewDecoder(bytes.NewReader([]byte(value)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil || decoder.More() {
		return errors.Join(err, errors.New("unknown JSON"))
	}
	switch option {
	case "-object":
		s.RAM.Shared, s.RAM.File = o.QOMType == "memory-backend-memfd", o.MemPath
		return unless(o.ID == ramID && o.Size == int64(s.MemoryMiB)<<20 && o.Share == s.RAM.Shared, "unknown object")
	case "-device":
		s.GenerationID = s.GenerationID || o.Driver == "vmgenid"
		return unless(map[string]string{"virtio-blk-pci": o.Drive, "virtio-net-pci": o.Netdev, "virtio-rng-pci": "rng", "vmgenid": o.GUID}[o.Driver] != "", "unknown device")
	}
	path := map[string]*string{"overlay": &s.Overlay, "seed": &s.Seed, "code": &s.UEFI.Code, "vars": &s.UEFI.Vars}[o.NodeName]
	if path == nil || *path != "" || o.File.Driver != "file" || o.ReadOnly != (o.NodeName == "seed" || o.NodeName == "code") {
		return errors.New("unknown node")
	}
	*path = o.File.Filename
	switch o.NodeName {
	case "code":
		s.UEFI.CodeFormat = o.Driver
	case "vars":
		s.UEFI.VarsFormat = o.Driver
	}
	return nil
}
