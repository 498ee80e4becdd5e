package image

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/digest"
)

// Fault D2: no single changed byte is missed, anywhere.
func TestEachByteFlipped(t *testing.T) {
	body := diskBytes(1, 64<<10)
	want := sumOf(body)
	step := 1
	if testing.Short() {
		step = 61
	}
	for at := 0; at < len(body); at += step {
		body[at] ^= byte(1 << (at % 8))
		if want.Check("disk", sumOf(body)) == nil {
			t.Fatalf("byte %d", at)
		}
		body[at] ^= byte(1 << (at % 8))
	}
	require.NoError(t, want.Check("disk", sumOf(body)))
}

// Fault D2 from end to end: in the cache, and on the way.
func TestFlippedEndToEnd(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(1, 64<<10)
	s := o.put("disk.img", body)
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	const flips = 200
	for i := range int64(flips) {
		corrupt(t, d.Path, i*int64(len(body))/flips)
		d, err = Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err)
		require.True(t, d.Downloaded, "flip %d", i)
	}
	requireDisk(t, body, d)
	gets, _ := o.counts()
	require.Equal(t, flips+1, gets)

	for i := range 20 {
		bad := bytes.Clone(body)
		bad[i*len(body)/20] ^= 1
		o.mu.Lock()
		o.files["disk.img"] = bad
		o.mu.Unlock()
		home := newHome(t)
		_, err := Ensure(t.Context(), home, s, Report{})
		require.ErrorAs(t, err, new(*digest.MismatchError))
		_, ok := Find(home, s)
		require.False(t, ok)
		require.Equal(t, []string{lockName}, names(t, filepath.Join(home, "images", filepath.Base(filepath.Dir(d.Path)))))
	}
}
