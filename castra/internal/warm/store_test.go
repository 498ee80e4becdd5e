package warm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// some are the ingredients that most tests use.
func some() Ingredients {
	return Ingredients{
		Stage: Ready, Owner: "web", BaseImage: "sha256:aa", OverlayFormat: "qcow2", OverlayBytes: 1 << 30,
		Arch: "x86_64", Machine: "pc-q35-9.2", CPUs: 2, MemoryMiB: 256, Devices: []string{"virtio-net-pci", "virtio-rng-pci"}, QEMU: "9.2",
	}
}

func owned(owner string) Ingredients {
	i := some()
	i.Owner = owner
	return i
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	require.NoError(t, err)
	return s
}

// fillDisk and fillRAM write what a saved guest would leave.
func fillDisk(dir string) error {
	return os.WriteFile(filepath.Join(dir, DiskName), []byte("QFI\xfb disk"), 0o644)
}

func fillRAM(dir string) error {
	f, err := os.Create(filepath.Join(dir, RAMName))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(8*mib + 100); err != nil {
		return err
	}
	for off, text := range map[int64]string{5: "low", 3*mib + 70_000: "high", 8*mib + 90: "end"} {
		if _, err := f.WriteAt([]byte(text), off); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, StateName), []byte("devices"), 0o666); err != nil {
		return err
	}
	return fillDisk(dir)
}

func makeIt(t *testing.T, s *Store, i Ingredients, fill func(string) error) Info {
	t.Helper()
	info, err := s.Make(t.Context(), i, Meta{"web-0", "/run/wake"}, fill)
	require.NoError(t, err)
	return info
}

// requireNames says what the store holds.
func requireNames(t *testing.T, s *Store, patterns ...string) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Len(t, names, len(patterns), "%q", names)
	for n, p := range patterns {
		require.Regexp(t, regexp.MustCompile("^"+p+"$"), names[n])
	}
}

// Every field is in the key, also one that is added later.
func TestKey(t *testing.T) {
	require.Regexp(t, `^[0-9a-f]{32}$`, some().Key())
	require.Equal(t, some().Key(), some().Key())
	require.Equal(t, Ingredients{}.Key(), Ingredients{Devices: []string{}}.Key())
	keys := map[string]string{some().Key(): ""}
	names := map[string]bool{}
	for n := range reflect.TypeFor[Ingredients]().NumField() {
		field := reflect.TypeFor[Ingredients]().Field(n)
		i := some()
		v := reflect.ValueOf(&i).Elem().Field(n)
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Slice:
			v.Set(reflect.ValueOf([]string{"virtio-rng-pci", "virtio-net-pci"})) // the order counts
		default:
			t.Fatalf("%s: no case for %s", field.Name, v.Kind())
		}
		require.NotContains(t, keys, i.Key(), field.Name)
		keys[i.Key()] = field.Name
		name := field.Tag.Get("json")
		require.Regexp(t, `^[a-z_]+$`, name)
		require.NotContains(t, names, name)
		names[name] = true
		require.Equal(t, []string{name}, changed(some(), i))
	}
}

func TestMakeAndFind(t *testing.T) {
	s := open(t)
	_, err := s.Find(t.Context(), some())
	var miss *MissError
	require.ErrorAs(t, err, &miss)
	require.Equal(t, "no template yet", miss.Reason)
	require.NoDirExists(t, s.dir, "looking makes nothing")

	info := makeIt(t, s, some(), fillRAM)
	require.Equal(t, some().Key(), info.Key)
	require.True(t, info.RAM)
	require.Equal(t, Ready, info.Stage)
	require.Equal(t, "web", info.Owner)
	require.Less(t, info.Bytes, int64(mib), "sparse")
	requireNames(t, s, some().Key())
	for path, mode := range map[string]os.FileMode{"": 0o700, some().Key(): 0o700, some().Key() + "/disk.qcow2": 0o600, some().Key() + "/ram": 0o600, some().Key() + "/state": 0o600, some().Key() + "/manifest.json": 0o600, some().Key() + "/seen.json": 0o600} {
		st, err := os.Lstat(s.path(path))
		require.NoError(t, err)
		require.Equal(t, mode, st.Mode().Perm(), path)
	}
	require.NoFileExists(t, s.path(info.Key, lockName))

	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(s.path(info.Key, manifestName), past, past))
	peeked, err := s.Peek(t.Context(), some())
	require.NoError(t, err)
	all, err := s.All()
	require.NoError(t, err)
	require.Equal(t, past.Unix(), all[0].Used.Unix())
	require.False(t, all[0].InUse)
	peeked.Release()

	found, err := s.Find(t.Context(), some())
	require.NoError(t, err)
	require.Equal(t, s.path(info.Key, "disk.qcow2"), found.Disk())
	require.Equal(t, s.path(info.Key, "ram"), found.RAM())
	require.Equal(t, s.path(info.Key, "state"), found.State())
	require.Equal(t, some(), found.Manifest.Ingredients)
	require.Equal(t, "web-0", found.Manifest.Hostname)
	require.Equal(t, "/run/wake", found.Manifest.Wake)
	second, err := s.Find(t.Context(), some())
	require.NoError(t, err, "many may use it at once")
	second.Release()
	all, err = s.All()
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), all[0].Used, time.Minute)
	require.True(t, all[0].InUse)
	found.Release()
	found.Release()
	all, err = s.All()
	require.NoError(t, err)
	require.False(t, all[0].InUse)
}

func TestDiskTemplate(t *testing.T) {
	s := open(t)
	require.False(t, makeIt(t, s, some(), fillDisk).RAM)
	found, err := s.Find(t.Context(), some())
	require.NoError(t, err)
	defer found.Release()
	require.False(t, found.HasRAM())
	require.Empty(t, found.RAM())
	require.Empty(t, found.State())
	require.Empty(t, found.Manifest.Wake)
}

func TestMissReason(t *testing.T) {
	s := open(t)
	makeIt(t, s, some(), fillDisk)
	for want, change := range map[string]func(*Ingredients){
		"memory_mib changed":                            func(i *Ingredients) { i.MemoryMiB = 512 },
		"cpus, memory_mib changed":                      func(i *Ingredients) { i.MemoryMiB, i.CPUs = 512, 4 },
		"base_image, kernel, append and 2 more changed": func(i *Ingredients) { i.BaseImage, i.Kernel, i.Append, i.CPU, i.User = "1", "2", "3", "4", "5" },
		"no template yet":                               func(i *Ingredients) { i.Owner = "db" },
	} {
		i := some()
		change(&i)
		_, err := s.Find(t.Context(), i)
		var miss *MissError
		require.ErrorAs(t, err, &miss)
		require.Equal(t, want, miss.Reason)
		require.NotEmpty(t, miss.Hint())
	}
	near := some()
	near.MemoryMiB, near.CPUs = 512, 4
	makeIt(t, s, near, fillDisk)
	near.CPUs = 8
	_, err := s.Find(t.Context(), near)
	require.EqualError(t, err, "no warm template: cpus changed", "of the nearest")
}

func TestUnsafe(t *testing.T) {
	key := some().Key()
	for name, c := range map[string]struct {
		spoil func(s *Store) error
		path  string // below the store
		fix   string // %s is the path
	}{
		"symlinked store": {func(s *Store) error {
			if err := os.Rename(s.dir, s.dir+"2"); err != nil {
				return err
			}
			return os.Symlink(s.dir+"2", s.dir)
		}, "", "rm %s"},
		"readable store": {func(s *Store) error { return os.Chmod(s.dir, 0o755) }, "", "chmod 700 %s"},
		"writable store": {func(s *Store) error { return os.Chmod(s.dir, 0o720) }, "", "chmod 700 %s"},
		"a file as store": {func(s *Store) error {
			if err := os.Rename(s.dir, s.dir+"2"); err != nil {
				return err
			}
			return os.WriteFile(s.dir, nil, 0o600)
		}, "", "mv %[1]s %[1]s.aside"},
		"someone else's store": {func(s *Store) error { return chown(s.dir) }, "", "mv %[1]s %[1]s.aside"},
		"symlinked template": {func(s *Store) error {
			if err := os.Rename(s.path(key), s.dir+"2"); err != nil {
				return err
			}
			return os.Symlink(s.dir+"2", s.path(key))
		}, key, "rm %s"},
		"readable template":  {func(s *Store) error { return os.Chmod(s.path(key), 0o750) }, key, "chmod 700 %s"},
		"someone's template": {func(s *Store) error { return chown(s.path(key)) }, key, "mv %[1]s %[1]s.aside"},
		"readable file":      {func(s *Store) error { return os.Chmod(s.path(key, RAMName), 0o604) }, key + "/ram", "chmod 600 %s"},
		"readable manifest":  {func(s *Store) error { return os.Chmod(s.path(key, manifestName), 0o640) }, key + "/manifest.json", "chmod 600 %s"},
		"someone's file":     {func(s *Store) error { return chown(s.path(key, DiskName)) }, key + "/disk.qcow2", "mv %[1]s %[1]s.aside"},
		"symlinked file": {func(s *Store) error {
			if err := os.Rename(s.path(key, RAMName), s.dir+"2"); err != nil {
				return err
			}
			return os.Symlink(s.dir+"2", s.path(key, RAMName))
		}, key + "/ram", "rm %s"},
		"FIFO": {func(s *Store) error {
			if err := os.Remove(s.path(key, StateName)); err != nil {
				return err
			}
			return unix.Mkfifo(s.path(key, StateName), 0o600)
		}, key + "/state", "mv %[1]s %[1]s.aside"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			s, err := Open(home)
			require.NoError(t, err)
			makeIt(t, s, some(), fillRAM)
			err = c.spoil(s)
			if errors.Is(err, errNotRoot) {
				t.Skip(err)
			}
			require.NoError(t, err)
			_, err = s.Find(t.Context(), some())
			var unsafe *UnsafeError
			require.ErrorAs(t, err, &unsafe)
			require.Equal(t, s.path(c.path), unsafe.Path)
			require.Equal(t, fmt.Sprintf(c.fix, s.path(c.path)), unsafe.Hint())
			_, err = s.Peek(t.Context(), some())
			require.ErrorAs(t, err, &unsafe)
			if c.path == "" {
				_, err = Open(home)
				require.ErrorAs(t, err, &unsafe)
				_, err = s.Make(t.Context(), owned("db"), Meta{}, fillDisk)
				require.ErrorAs(t, err, &unsafe)
				_, err = s.Evict(0)
				require.ErrorAs(t, err, &unsafe)
			}
		})
	}
}

var errNotRoot = fmt.Errorf("only root can give a file away")

func chown(path string) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	return os.Lchown(path, 65534, 65534)
}

func TestQuote(t *testing.T) {
	for path, want := range map[string]string{"/a/b-1": "/a/b-1", "/a b": "'/a b'", "/it's": `'/it'\''s'`, "/$(x)": "'/$(x)'", "/~": "'/~'"} {
		require.Equal(t, want, quote(path))
	}
}

func TestOpenWhereNothingIs(t *testing.T) {
	for _, home := range []string{"", "relative"} {
		_, err := Open(home)
		require.Error(t, err)
	}
	home := filepath.Join(t.TempDir(), "none")
	s, err := Open(home)
	require.NoError(t, err)
	for _, list := range []func() ([]Info, error){s.All, s.Leftovers, func() ([]Info, error) { return s.Evict(0) }} {
		all, err := list()
		require.NoError(t, err)
		require.Empty(t, all)
	}
	require.NoError(t, s.Sweep())
	require.NoError(t, s.SetAside(some().Key(), "why"))
	_, _, err = s.Remove(some().Key())
	require.NoError(t, err)
	require.NoDirExists(t, home)
}

// Zeros and holes have one digest; any other byte, or the place of one, another.
func TestSparseDigest(t *testing.T) {
	dir := t.TempDir()
	sum := func(size int64, write func(f *os.File)) string {
		f, err := os.Create(filepath.Join(dir, "f"))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, f.Truncate(size))
		write(f)
		d, err := digest(t.Context(), f, size)
		require.NoError(t, err)
		return d
	}
	at := func(off int64, text string) func(*os.File) {
		return func(f *os.File) {
			_, err := f.WriteAt([]byte(text), off)
			require.NoError(t, err)
		}
	}
	const size = 4*mib + 11
	hole := sum(size, at(mib, "x"))
	require.Equal(t, hole, sum(size, func(f *os.File) { at(0, string(make([]byte, size)))(f); at(mib, "x")(f) }))
	seen := map[string]string{hole: "x"}
	for name, d := range map[string]string{
		"place": sum(size, at(mib+1, "x")), "block": sum(size, at(2*mib, "x")), "byte": sum(size, at(mib, "y")),
		"size": sum(size+1, at(mib, "x")), "none": sum(size, at(mib, "")), "empty": sum(0, at(0, "")), "last": sum(size, at(size-1, "x")),
		"both": sum(size, func(f *os.File) { at(mib, "x")(f); at(size-1, "x")(f) }),
	} {
		require.NotContains(t, seen, d, name)
		seen[d] = name
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := os.Open(filepath.Join(dir, "f"))
	require.NoError(t, err)
	defer f.Close()
	_, err = digest(ctx, f, size)
	require.Error(t, err, "shorter than said, or cancelled")
}
