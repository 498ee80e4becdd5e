package image

import (
	"path"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/digest"
)

// Every entry is found by its name, and a flat mirror can hold them all.
func TestEachEntryIsFound(t *testing.T) {
	all := Catalogue()
	require.Len(t, all, len(catalogue))
	files := map[string]string{}
	for _, e := range all {
		found, err := Named(e.Name, e.Arch)
		require.NoError(t, err)
		require.Equal(t, e, found)
		file := path.Base(e.URL)
		require.Empty(t, files[file], "the mirror has it already")
		files[file] = e.Name

		d, err := digest.Parse(e.Digest)
		require.NoError(t, err)
		s := e.From("http://mirror.invalid/x")
		require.Equal(t, Source{e.Name, e.URL, d, e.Size, "http://mirror.invalid/x"}, s)
		address, err := s.address()
		require.NoError(t, err)
		require.Equal(t, "http://mirror.invalid/x/"+file, address)
		address, err = e.From("").address()
		require.NoError(t, err)
		require.Equal(t, e.URL, address)
		if e.Default {
			d, err := DefaultEntry(e.Arch)
			require.NoError(t, err)
			require.Equal(t, e, d)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	kept := catalogue
	t.Cleanup(func() { catalogue = kept })
	catalogue = []Entry{{Name: "debian-13", Arch: "amd64"}, {Name: "debian-13", Arch: "arm64"}, {Name: "debian-12", Arch: "amd64"}, {Name: "alpine-3.23", Arch: "amd64"}, {Name: "pc-only", Arch: "amd64"}}
	for name, c := range map[string]struct{ arch, says, hint string }{
		"debian-14": {"amd64", "no such image; known: alpine-3.23, debian-12, debian-13, pc-only, small", "mage images"},
		"Debian-13": {"amd64", "no such image", "mage images"},
		"alpine":    {"amd64", "no such image", "mage images"},
		"smal":      {"arm64", "known: debian-13, small", "mage images"},
		"windows":   {"amd64", "no such image", "mage images"},
		"":          {"amd64", "no such image", "mage images"},
		"pc-only":   {"arm64", "not there for aarch64", "it exists for x86_64 only"},
		"debian-13": {"riscv64", "not there for riscv64", "x86_64 and aarch64"},
	} {
		_, err := Named(name, c.arch)
		var unknown *UnknownError
		require.ErrorAs(t, err, &unknown, name)
		require.Equal(t, name, unknown.Name)
		require.True(t, slices.IsSorted(unknown.Known))
		require.ErrorContains(t, err, c.says)
		require.Contains(t, unknown.Hint(), c.hint, name)
	}
	_, err := DefaultEntry("amd64")
	require.ErrorAs(t, err, new(*UnknownError))
	_, _, err = Lookup(t.TempDir(), "debian-13", "amd64")
	require.ErrorAs(t, err, new(*UnknownError))
	_, err = Make(t.Context(), t.TempDir(), "nothing", "amd64", nil)
	require.ErrorAs(t, err, new(*UnknownError))
}
