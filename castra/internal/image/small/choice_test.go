package small

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// paragraphs is what apt-cache would show of packages, each "name: dependencies".
func paragraphs(packages ...string) string {
	var b strings.Builder
	for _, p := range packages {
		name, depends, _ := strings.Cut(p, ":")
		b.WriteString("Package: " + name + "\nVersion: 1\nFilename: pool/" + name + "_1.deb\nSHA256: 00\n")
		if depends != "" {
			b.WriteString("Depends:" + depends + "\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func namesOf(list []pkg) string {
	var all []string
	for _, p := range list {
		all = append(all, p.Name)
	}
	return strings.Join(all, " ")
}

// The names of packages differ between distributions and their releases.
func TestResolveGuest(t *testing.T) {
	common := []string{"busybox-static", "dropbear-bin: libc6, zlib1g (>= 1:1.1.4)", "libc6: libgcc-s1", "zlib1g: libc6", "e2fsprogs: logsave, libc6"}
	tests := []struct {
		name, kernel, loader string
		packages             []string
	}{
		{"Debian 12", "linux-image-6.1.0-56-cloud-amd64", "systemd-boot-efi", []string{
			"linux-image-cloud-amd64: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)",
			"linux-image-6.1.0-56-cloud-amd64: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool", "systemd-boot-efi", "systemd",
		}},
		{"Ubuntu 24.04", "linux-image-6.8.0-31-generic linux-modules-6.8.0-31-generic", "systemd-boot-efi", []string{
			"linux-image-generic: linux-image-6.8.0-31-generic, linux-modules-extra-6.8.0-31-generic, linux-firmware",
			"linux-image-virtual: linux-image-6.8.0-31-generic", "linux-modules-6.8.0-31-generic",
			"linux-image-6.8.0-31-generic: kmod, linux-base (>= 4.5ubuntu1~16.04.1), linux-modules-6.8.0-31-generic", "systemd-boot-efi",
		}},
		{"systemd-boot inside systemd", "linux-image-5.15.0-1-generic", "systemd", []string{
			"linux-image-generic: linux-image-5.15.0-1-generic", "linux-image-5.15.0-1-generic", "systemd: libc6",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "lists")
			require.NoError(t, os.WriteFile(file, []byte(paragraphs(append(tt.packages, common...)...)), 0o644))
			fakeTools(t, "exec cat "+file+"\n")
			host, err := findTools()
			require.NoError(t, err)
			set, err := apt{host: host, arch: "amd64"}.resolveGuest(t.Context(), targets[0])
			require.NoError(t, err)
			require.Equal(t, tt.kernel, namesOf(set.kernel))
			require.Equal(t, tt.loader, namesOf(set.loader))
			require.Equal(t, "busybox-static dropbear-bin e2fsprogs libc6 zlib1g", namesOf(set.guest))
		})
	}
}

func TestChosen(t *testing.T) {
	found := parsePackages([]byte(paragraphs("b", "c") + "Package: virtual\n"))
	list, missing := chosen([]need{{"a", "b"}, {"c", "b"}}, found)
	require.Equal(t, "b c", namesOf(list))
	require.Empty(t, missing)
	_, missing = chosen([]need{{"a", "d"}, {"c"}, {"virtual"}}, found)
	require.Equal(t, []string{"a or d", "virtual"}, missing, "what cannot be fetched is not there")
}

func TestMissingPackages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lists")
	require.NoError(t, os.WriteFile(file, []byte(paragraphs("busybox-static", "dropbear-bin", "e2fsprogs", "systemd")), 0o644))
	fakeTools(t, "exec cat "+file+"\n")
	for _, arch := range []string{"amd64", "arm64"} {
		_, err := BuildFor(t.Context(), t.TempDir(), arch, nil)
		var missing *HostError
		require.ErrorAs(t, err, &missing)
		require.Equal(t, []string{"linux-image-cloud-" + arch + " or linux-image-virtual or linux-image-generic"}, missing.Packages)
		require.Equal(t, arch, missing.Arch)
		require.Contains(t, err.Error(), "have no linux-image-cloud-"+arch+" or linux-image-virtual or linux-image-generic for "+arch)
		require.Contains(t, missing.Hint(), map[bool]string{true: "universe", false: "ports.ubuntu.com"}[arch == runtime.GOARCH])
	}
}

func TestUnknownArchitecture(t *testing.T) {
	_, ok := LookupFor(t.TempDir(), "riscv64")
	require.False(t, ok)
	_, err := BuildFor(t.Context(), t.TempDir(), "riscv64", nil)
	var missing *HostError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "riscv64", missing.Arch)
	require.ErrorContains(t, err, "no small guest for or on riscv64")
}

// Lists of another architecture never touch the system's, and new ones are fetched once in a build.
func TestAttempts(t *testing.T) {
	b := &builder{guests: "/home/guests", updated: make(map[string]bool)}
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	require.Empty(t, b.attempts(runtime.GOARCH)[0].apt.private)
	for _, way := range b.attempts(other) {
		require.Equal(t, "/home/guests/apt-"+other, way.apt.private)
		options := strings.Join(way.apt.options(), " ")
		for _, want := range []string{"APT::Architecture=" + other, "APT::Architectures=" + other, "Dir::State=/home/guests/apt-", "Dir::State::status=/home/guests/apt-"} {
			require.Contains(t, options, want)
		}
	}
	b.updated[other] = true
	require.Len(t, b.attempts(other), 1)
	require.False(t, b.attempts(other)[0].update)
}

func TestPackageOnce(t *testing.T) {
	both := pkg{Name: "e2fsprogs", File: "e2fsprogs_1_amd64.deb"}
	set := packageSet{guest: []pkg{both}, tools: []pkg{both, {Name: "e2fsprogs", File: "e2fsprogs_1_arm64.deb"}}}
	require.Len(t, set.all(), 2)
}

func TestSystemName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "os-release")
	require.Equal(t, "this host", systemName(file))
	require.NoError(t, os.WriteFile(file, []byte("NAME=Ubuntu\nPRETTY_NAME=\"Ubuntu 24.04 LTS\"\n"), 0o644))
	require.Equal(t, "Ubuntu 24.04 LTS", systemName(file))
}

func TestLicenseIn(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"machine readable", "Format: x\n\nFiles: *\nCopyright: 2020 A\n           2021 B\nLicense: LGPL-2.1+\n text\n\nFiles: debian/*\nLicense: GPL-2\n", "LGPL-2.1+"},
		{"not the first", "Files: debian/*\nLicense: GPL-2\n\nFiles: *\nLicense: MIT\n", "MIT"},
		{"a paragraph without", "Files: *\nCopyright: A\n\nLicense: BSD\n text\n", ""},
		{"in words", "see /usr/share/common-licenses/LGPL-2.1.\nand `/usr/share/common-licenses/GPL-2', /usr/share/common-licenses/GPL-2\n", "LGPL-2.1, GPL-2"},
		{"says nothing", "Copyright A\n", ""},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, licenseIn([]byte(tt.text)), tt.name)
	}
}

func TestKept(t *testing.T) {
	home := t.TempDir()
	var current []string
	for _, target := range targets {
		g, _ := LookupFor(home, target.arch)
		require.NoError(t, os.MkdirAll(g.Dir, 0o755))
		require.NoError(t, os.WriteFile(g.Disk, []byte("disk"), 0o644))
		require.NoError(t, os.WriteFile(g.Manifest, []byte(`{"outputs": [{"name": "disk.qcow2", "bytes": 4}]}`), 0o644))
		current = append(current, filepath.Base(g.Dir))
	}
	for _, name := range []string{"small-0123456789ab", "small-arm64-0123456789ab", "small-sparc-0123456789ab", "apt-arm64", packagesDir} {
		require.NoError(t, os.MkdirAll(filepath.Join(home, guestsDir, name), 0o755))
	}
	all, err := All(home)
	require.NoError(t, err)
	var kept []string
	for _, k := range all {
		kept = append(kept, k.Name)
		require.Equal(t, k.Disk != "", k.Current, k.Name)
		require.NoError(t, Remove(home, k.Name))
		require.NoDirExists(t, k.Dir)
	}
	require.ElementsMatch(t, append(current, "small-0123456789ab", "small-arm64-0123456789ab"), kept)
	require.Error(t, Remove(home, "small-sparc-0123456789ab"))
	require.DirExists(t, filepath.Join(home, guestsDir, "apt-arm64"))
}
