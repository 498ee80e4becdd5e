package seed

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kdomanski/iso9660"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

var update = flag.Bool("update", false, "rewrite golden files")

// A fixed pair, for golden files. It opens nothing.
const fixedPrivate = `-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACB3kGzZ6A2bx5fMQ1fJr0nUM0Lf5cG0b3ZQp4V7HcX0cQAAAIi8lW2jvJVt
-----END OPENSSH PRIVATE KEY-----
`

func exampleSeed(t *testing.T, user string) Seed {
	t.Helper()
	login, err := NewKey("castra@demo")
	require.NoError(t, err)
	host, err := NewKey("web-0")
	require.NoError(t, err)
	return Seed{InstanceID: "i-1", Hostname: "web-0", User: user, AuthorizedKeys: []string{login.Public}, HostKey: host}
}

func TestKey(t *testing.T) {
	key, err := NewKey("castra@demo")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(key.Public, "ssh-ed25519 "))
	require.True(t, strings.HasSuffix(key.Public, " castra@demo"))
	signer, err := ssh.ParsePrivateKey(key.Private)
	require.NoError(t, err)
	public, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(key.Public))
	require.NoError(t, err)
	require.Equal(t, signer.PublicKey().Marshal(), public.Marshal())
	require.Equal(t, "castra@demo", comment)

	again, err := ParseKey(key.Private)
	require.NoError(t, err)
	require.Equal(t, key.Private, again.Private)
	require.Equal(t, strings.TrimSuffix(key.Public, " castra@demo"), again.Public)

	other, err := NewKey("castra@demo")
	require.NoError(t, err)
	require.NotEqual(t, key.Private, other.Private)
	_, err = NewKey("two\nlines")
	require.Error(t, err)
	_, err = ParseKey([]byte("nonsense"))
	require.Error(t, err)
}

func TestUserData(t *testing.T) {
	for _, user := range []string{"root", "castra"} {
		t.Run(user, func(t *testing.T) {
			s := Seed{InstanceID: "i-1", Hostname: "web-0", User: user,
				AuthorizedKeys: []string{"ssh-ed25519 AAAAone someone: # else", "ssh-ed25519 AAAAtwo"},
				HostKey:        Key{Private: []byte(fixedPrivate), Public: "ssh-ed25519 AAAAhost web-0"}}
			golden := filepath.Join("testdata", user+".yaml")
			if *update {
				require.NoError(t, os.WriteFile(golden, s.UserData(), 0o600))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), string(s.UserData()))
		})
	}
	require.Equal(t, "instance-id: i-1\nlocal-hostname: web-0\n", string(Seed{InstanceID: "i-1", Hostname: "web-0"}.MetaData()))
}

// What YAML takes for a number, a date or a truth value must stay a string.
func TestScalar(t *testing.T) {
	for _, s := range []string{"on", "no", "null", "y", "123", "1e3", "0x1f", "1-0", "2026-01-1", "2026-01-01", "web"} {
		require.Equal(t, `"`+s+`"`, scalar(s))
	}
	for _, s := range []string{"web-0", "i-1", "root", "db-primary-10"} {
		require.Equal(t, s, scalar(s))
	}
}

func TestWrite(t *testing.T) {
	s := exampleSeed(t, "root")
	dir := t.TempDir()
	path := filepath.Join(dir, "web-0-seed.iso")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
	require.NoError(t, s.Write(path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode(), "G3")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	first, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, s.Write(path))
	second, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(first, second), "equal seeds must give equal bytes")

	image, err := iso9660.OpenImage(bytes.NewReader(first))
	require.NoError(t, err)
	label, err := image.Label()
	require.NoError(t, err)
	require.Equal(t, "cidata", label)
	root, err := image.RootDir()
	require.NoError(t, err)
	children, err := root.GetChildren()
	require.NoError(t, err)
	got := map[string]string{}
	for _, c := range children {
		data, err := io.ReadAll(c.Reader())
		require.NoError(t, err)
		got[c.Name()] = string(data)
	}
	require.Equal(t, map[string]string{"meta-data": string(s.MetaData()), "user-data": string(s.UserData())}, got)
}

// Files that end at, before and after a sector's end.
func TestISOSizes(t *testing.T) {
	for _, size := range []int{0, 1, sector - 1, sector, sector + 1, 5 * sector} {
		want := bytes.Repeat([]byte("x"), size)
		data := isoImage("cidata", []isoFile{{"meta-data", want}, {"user-data", []byte("last")}})
		require.Zero(t, len(data)%sector)
		image, err := iso9660.OpenImage(bytes.NewReader(data))
		require.NoError(t, err)
		root, err := image.RootDir()
		require.NoError(t, err)
		children, err := root.GetChildren()
		require.NoError(t, err)
		require.Len(t, children, 2)
		got, err := io.ReadAll(children[0].Reader())
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
		got, err = io.ReadAll(children[1].Reader())
		require.NoError(t, err)
		require.Equal(t, "last", string(got))
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Seed){
		"no instance":      func(s *Seed) { s.InstanceID = "" },
		"instance newline": func(s *Seed) { s.InstanceID = "a\nb: c" },
		"hostname quote":   func(s *Seed) { s.Hostname = `a"b` },
		"hostname dot":     func(s *Seed) { s.Hostname = "a.b" },
		"hostname dash":    func(s *Seed) { s.Hostname = "-a" },
		"hostname long":    func(s *Seed) { s.Hostname = strings.Repeat("a", 64) },
		"user colon":       func(s *Seed) { s.User = "a: b" },
		"no user":          func(s *Seed) { s.User = "" },
		"no keys":          func(s *Seed) { s.AuthorizedKeys = nil },
		"bad key":          func(s *Seed) { s.AuthorizedKeys = append(s.AuthorizedKeys, "ssh-ed25519 nonsense") },
		"key options":      func(s *Seed) { s.AuthorizedKeys[0] = `command="x" ` + s.AuthorizedKeys[0] },
		"two keys a line":  func(s *Seed) { s.AuthorizedKeys[0] += "\n" + s.AuthorizedKeys[0] },
		"no host key":      func(s *Seed) { s.HostKey = Key{} },
		"bad host key":     func(s *Seed) { s.HostKey.Private = []byte(fixedPrivate) },
	} {
		t.Run(name, func(t *testing.T) {
			s := exampleSeed(t, "root")
			spoil(&s)
			path := filepath.Join(t.TempDir(), "seed.iso")
			require.ErrorContains(t, s.Write(path), path)
			require.NoFileExists(t, path)
		})
	}
	s := exampleSeed(t, "root")
	require.ErrorIs(t, s.Write(filepath.Join(t.TempDir(), "none", "seed.iso")), os.ErrNotExist)
}

func BenchmarkWrite(b *testing.B) {
	host, err := NewKey("")
	require.NoError(b, err)
	s := Seed{InstanceID: "i-1", Hostname: "web-0", User: "root", AuthorizedKeys: []string{host.Public}, HostKey: host}
	path := filepath.Join(b.TempDir(), "seed.iso")
	for b.Loop() {
		require.NoError(b, s.Write(path))
	}
}
