package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/digest"
	"castra.example/castra/castra/internal/soak"
)

// Fault D2: no single changed byte is missed, anywhere.
func TestEachByteFlippedSoak(t *testing.T) {
	body := diskBytes(1, 64<<10)
	want := sumOf(body)
	flipped := 0
	for at := 0; at < len(body); at += soak.N(61, 1) {
		body[at] ^= byte(1 << (at % 8))
		require.Error(t, want.Check("disk", sumOf(body)), "byte %d", at)
		body[at] ^= byte(1 << (at % 8))
		flipped++
	}
	require.NoError(t, want.Check("disk", sumOf(body)))
	soak.AtLeast(t, "D2", "bytes flipped, each refused", 65536, float64(flipped))
}

// Fault D2 from end to end, in the store: what was damaged is never handed out, and fetched again.
func TestFlippedInTheStoreSoak(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(1, 64<<10)
	s := o.put("disk.img", body)
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	flips := soak.N(40, 1000)
	for i := range flips {
		corrupt(t, d.Path, int64(i)*int64(len(body))/int64(flips))
		d, err = Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err)
		require.True(t, d.Downloaded, "flip %d", i)
		requireDisk(t, body, d)
	}
	gets, _ := o.counts()
	require.Equal(t, flips+1, gets)
	soak.AtLeast(t, "D2", "bytes flipped in the store, each fetched again", 1000, float64(flips))
}

// Fault D2 from end to end, on the way: nothing gets the final name, and the right body is taken next time.
func TestFlippedOnTheWaySoak(t *testing.T) {
	o, body := newOrigin(t), diskBytes(1, 64<<10)
	s := o.put("disk.img", body)
	key, err := s.key()
	require.NoError(t, err)
	flips := soak.N(15, 200)
	for i := range flips {
		bad := bytes.Clone(body)
		bad[i*len(body)/flips] ^= 1
		serves := func(b []byte) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.files["disk.img"] = b
		}
		serves(bad)
		home := newHome(t)
		_, err := Ensure(t.Context(), home, s, Report{})
		require.ErrorAs(t, err, new(*digest.MismatchError))
		_, ok := Find(home, s)
		require.False(t, ok)
		require.Equal(t, []string{lockName}, names(t, filepath.Join(home, imagesDir, key)))
		serves(body)
		d, err := Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err)
		requireDisk(t, body, d)
	}
	soak.AtLeast(t, "D2", "bytes flipped on the way, each refused", 200, float64(flips))
}

// Fault D2: facts.json is damaged, and so is the disk. Whatever the facts say then, the disk is not handed out.
func TestFlippedFactsSoak(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(1, 4<<10)
	s := o.put("disk.img", body)
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	path := filepath.Join(filepath.Dir(d.Path), factsName)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	flipped := 0
	for at := 0; at < len(good); at += soak.N(len(good)/20, 1) {
		corrupt(t, d.Path, int64(at%len(body)))
		bad := bytes.Clone(good)
		bad[at] ^= byte(1 << (at % 7))
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		d, err = Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err, "byte %d", at)
		requireDisk(t, body, d)
		flipped++
	}
	soak.AtLeast(t, "D2", "bytes flipped in facts.json beside a damaged disk", 400, float64(flipped))
}
