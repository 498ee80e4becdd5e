package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkCached is what a cached image of 200 MB costs: "hashed" the first time
// after a boot, "known" each later time.
func BenchmarkCached(b *testing.B) {
	const size = 200_000_000
	home, mirror := newHome(b), b.TempDir()
	body := diskBytes(1, size)
	require.NoError(b, os.WriteFile(filepath.Join(mirror, "disk.img"), body, 0o600))
	s := Source{URL: "https://images.invalid/disk.img", Digest: sumOf(body), Size: size, Mirror: mirror}
	d, err := Ensure(b.Context(), home, s, Report{})
	require.NoError(b, err)
	settle()
	run := func(name string, before func()) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				before()
				got, err := Ensure(b.Context(), home, s, Report{})
				require.NoError(b, err)
				require.Equal(b, name == "hashed", got.Hashed > 0)
			}
		})
	}
	run("hashed", func() { require.NoError(b, os.Remove(filepath.Join(filepath.Dir(d.Path), factsName))) })
	run("known", func() {})
}
