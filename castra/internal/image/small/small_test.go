package small

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
)

// shared is the one guest that the tests with a real build use.
var shared struct {
	once     sync.Once
	home     string
	guest    Guest
	err      error
	progress []string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.home != "" {
		os.RemoveAll(shared.home)
	}
	os.Exit(code)
}

// builtGuest builds a guest once for all tests, or skips.
func builtGuest(t *testing.T) Guest {
	t.Helper()
	if testing.Short() {
		t.Skip("building a guest takes long")
	}
	var missing *HostError
	if _, err := findTools(); errors.As(err, &missing) {
		t.Skipf("no small guest on this host: %v", err)
	}
	shared.once.Do(func() {
		if shared.home, shared.err = os.MkdirTemp("", "castra-small-"); shared.err != nil {
			return
		}
		shared.guest, shared.err = Build(t.Context(), shared.home, func(s string) { shared.progress = append(shared.progress, s) })
	})
	require.NoError(t, shared.err)
	return shared.guest
}

// builtARM64 builds the other guest beside it, where an emulator could boot it and the package sources have arm64.
func builtARM64(t *testing.T) Guest {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-aarch64"); err != nil {
		t.Skip("no qemu-system-aarch64 on this host")
	}
	builtGuest(t)
	g, err := BuildFor(t.Context(), shared.home, "arm64", nil)
	if missing := new(HostError); errors.As(err, &missing) {
		t.Skipf("no arm64 guest on this host: %v", err)
	}
	require.NoError(t, err)
	require.Equal(t, "arm64", g.Arch)
	require.Contains(t, g.Append, "console=ttyAMA0 ")
	return g
}

func TestBuild(t *testing.T) {
	g := builtGuest(t)
	require.Equal(t, "root", g.User)
	require.Contains(t, g.Append, "console=ttyS0 ")
	require.Equal(t, "amd64", g.Arch)
	require.Contains(t, shared.progress, "building the disk")

	found, ok := Lookup(shared.home)
	require.True(t, ok)
	require.Equal(t, g, found)

	m, err := ReadManifest(g.Manifest)
	require.NoError(t, err)
	host, _ := targetFor(runtime.GOARCH)
	require.Equal(t, recipeDigest(host), m.Recipe)
	require.Equal(t, runtime.GOARCH, m.Arch)
	require.Positive(t, m.BuildSeconds)
	var names []string
	for _, p := range m.Packages {
		names = append(names, p.Name)
		require.Len(t, p.SHA256, 64)
		digest, err := fileDigest(filepath.Join(shared.home, "guests", packagesDir, p.File))
		require.NoError(t, err)
		require.Equal(t, p.SHA256, digest)
	}
	require.Subset(t, names, []string{"busybox-static", "dropbear-bin", "libc6", "syslinux"})
	for _, out := range m.Outputs {
		digest, err := fileDigest(filepath.Join(g.Dir, out.Name))
		require.NoError(t, err)
		require.Equal(t, out.SHA256, digest)
	}
	info, err := os.Stat(g.Disk)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(30<<20))
	require.Zero(t, info.Mode()&0o222, "a base image must not be writable")
}

// A guest that is there is not built again, and the second build of the same packages, without fetching, gives the same bytes.
func TestBuildAgain(t *testing.T) {
	g := builtGuest(t)
	first, err := ReadManifest(g.Manifest)
	require.NoError(t, err)

	again, err := Build(t.Context(), shared.home, func(s string) { t.Errorf("there already, but %s", s) })
	require.NoError(t, err)
	require.Equal(t, g, again)

	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, "guests"), 0o755))
	require.NoError(t, os.CopyFS(filepath.Join(home, "guests", packagesDir), os.DirFS(filepath.Join(shared.home, "guests", packagesDir))))
	leftover := filepath.Join(home, "guests", workPrefix+"1")
	require.NoError(t, os.MkdirAll(filepath.Join(leftover, "tree"), 0o755))

	var wait sync.WaitGroup
	var built [2]Guest
	var errs [2]error
	var mu sync.Mutex
	steps := make(map[string]int)
	for i := range built {
		wait.Go(func() {
			built[i], errs[i] = Build(t.Context(), home, func(s string) { mu.Lock(); steps[s]++; mu.Unlock() })
		})
	}
	wait.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	require.Equal(t, built[0], built[1])
	require.Equal(t, 1, steps["building the disk"], "two builders build once")
	for step := range steps {
		require.NotContains(t, step, "fetching")
	}
	require.NoDirExists(t, leftover)

	second, err := ReadManifest(built[0].Manifest)
	require.NoError(t, err)
	require.Equal(t, first.Outputs, second.Outputs)
}

func TestLookup(t *testing.T) {
	host, _ := targetFor(runtime.GOARCH)
	home := t.TempDir()
	g, ok := Lookup(home)
	require.False(t, ok)
	require.Equal(t, filepath.Join(home, "guests", dirName(host), diskName), g.Disk, "where it will be")

	require.NoError(t, os.MkdirAll(g.Dir, 0o755))
	manifest := fmt.Sprintf(`{"outputs": [{"name": %q, "bytes": 4}]}`, diskName)
	require.NoError(t, os.WriteFile(g.Manifest, []byte(manifest), 0o644))
	_, ok = Lookup(home)
	require.False(t, ok, "disk missing")
	require.NoError(t, os.WriteFile(g.Disk, []byte("abc"), 0o644))
	_, ok = Lookup(home)
	require.False(t, ok, "disk cut short")
	require.NoError(t, os.WriteFile(g.Disk, []byte("abcd"), 0o644))
	_, ok = Lookup(home)
	require.True(t, ok)
	require.NoError(t, os.WriteFile(g.Manifest, []byte(`{"outputs": [`), 0o644))
	_, ok = Lookup(home)
	require.False(t, ok, "manifest cut short")
}

func TestBuildMissingTools(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	_, err := Build(t.Context(), t.TempDir(), nil)
	var missing *HostError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{"apt-get", "apt-cache", "dpkg-deb", "qemu-img"}, missing.Missing)
	require.EqualError(t, err, "build the small guest: not found on this host: apt-get, apt-cache, dpkg-deb, qemu-img")
	require.Contains(t, missing.Hint(), "base_image")

	for _, tool := range missing.Missing[:3] {
		require.NoError(t, os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\n"), 0o755))
	}
	_, err = Build(t.Context(), t.TempDir(), nil)
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{"qemu-img"}, missing.Missing)
	require.Contains(t, missing.Hint(), "qemu-utils")
}

// fakeTools puts programs into PATH that all run the given shell script.
func fakeTools(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb", "qemu-img"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\n"+script), 0o755))
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

func TestBuildAptFails(t *testing.T) {
	fakeTools(t, "echo \"E: no network for $0\" >&2; exit 100\n")
	home := t.TempDir()
	_, err := Build(t.Context(), home, nil)
	var failed *CommandError
	require.ErrorAs(t, err, &failed)
	require.Contains(t, err.Error(), "E: no network")
	require.Contains(t, failed.Hint(), "apt-get update")
	left, err := filepath.Glob(filepath.Join(home, "guests", workPrefix+"*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestBuildCancelled(t *testing.T) {
	fakeTools(t, "exec sleep 60\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("changed my mind")
	home := t.TempDir()
	_, err := Build(ctx, home, func(string) { cancel(why) })
	require.ErrorIs(t, err, why)
	left, err := filepath.Glob(filepath.Join(home, "guests", "small-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestBuildWaitsForLock(t *testing.T) {
	fakeTools(t, "exit 1\n")
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, "guests"), 0o755))
	other := flock.New(filepath.Join(home, "guests", "small.lock"))
	require.NoError(t, other.Lock())
	defer other.Unlock()

	ctx, cancel := context.WithCancel(t.Context())
	var heard []string
	_, err := Build(ctx, home, func(s string) { heard = append(heard, s); cancel() })
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"waiting for another build, at most 15m0s"}, heard)
}

func TestBuildRelativeHome(t *testing.T) {
	fakeTools(t, "exit 1\n")
	_, err := Build(t.Context(), "relative", nil)
	require.ErrorContains(t, err, `home "relative": not an absolute path`)
}

func TestRemoveLeftovers(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "canary"), nil, 0o644))
	for _, d := range []string{workPrefix + "12/tree/etc", workPrefix + "13", "small-0123456789ab", packagesDir} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, workPrefix+"12", "link")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, workPrefix+"link")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, workPrefix+"file"), nil, 0o644))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	require.NoError(t, removeLeftovers(root))

	var left []string
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	require.Equal(t, []string{packagesDir, "small-0123456789ab", workPrefix + "file", workPrefix + "link"}, left)
	require.FileExists(t, filepath.Join(outside, "canary"))
}

// The guest's scripts are files that people read and edit: what their modes and lines rest on is checked here.
func TestGuestFiles(t *testing.T) {
	seen := make(map[string]bool)
	for _, target := range targets {
		require.Len(t, recipeDigest(target), 64)
		require.NotContains(t, target.commandLine(), "\n")
		require.Regexp(t, guestName, dirName(target))
		seen[dirName(target)] = true
	}
	require.Len(t, seen, len(targets))
	err := fs.WalkDir(guestFiles, "root", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text := string(guestFile(path))
		require.True(t, strings.HasSuffix(text, "\n"), path)
		require.NotContains(t, text, "\r", path)
		return nil
	})
	require.NoError(t, err)
	for _, script := range []string{"initrd/init", "etc/castra/boot", "etc/castra/dhcp", "etc/acpi/PWRF/00000080", "etc/castra/stop", "etc/castra/gpio-button"} {
		require.True(t, strings.HasPrefix(string(guestFile("root/"+script)), "#!/bin/sh\n"), script)
	}
}
