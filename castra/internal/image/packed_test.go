package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/image/unpack"
)

func pack(t testing.TB, form unpack.Form, b []byte) []byte {
	var buf bytes.Buffer
	var err error
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	switch form {
	case unpack.Gzip:
		w = gzip.NewWriter(&buf)
	case unpack.XZ:
		w, err = xz.NewWriter(&buf)
	case unpack.Zstd:
		w, err = zstd.NewWriter(&buf)
	}
	require.NoError(t, err)
	_, err = w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

var forms = []unpack.Form{unpack.Gzip, unpack.XZ, unpack.Zstd}

func TestPacked(t *testing.T) {
	o := newOrigin(t)
	body := append(diskBytes(1, 300_000), make([]byte, 1<<20)...)
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			home := newHome(t)
			s := o.put("disk.img", pack(t, form, body)) // the name does not tell
			before, _ := o.counts()
			phases := map[string]int64{}
			d, err := Ensure(t.Context(), home, s, Report{Progress: func(phase string, done, total int64) { phases[phase] = done }})
			require.NoError(t, err)
			require.Equal(t, map[string]int64{"downloading": s.Size, "unpacking": s.Size}, phases)
			requireDisk(t, body, d)
			require.Equal(t, s.Digest, d.Digest)
			var st unix.Stat_t
			require.NoError(t, unix.Stat(d.Path, &st))
			require.Less(t, st.Blocks*512, int64(600_000), "zeros are holes")

			settle()
			for hashed := range 2 {
				d, err = Ensure(t.Context(), home, s, Report{})
				require.NoError(t, err)
				require.False(t, d.Downloaded)
				require.Equal(t, hashed == 0, d.Hashed > 0)
			}
			place := filepath.Join(t.TempDir(), "a.qcow2")
			require.NoError(t, Place(t.Context(), d, place))
			side, err := os.ReadFile(filepath.Join(filepath.Dir(place), "a.sha512"))
			require.NoError(t, err)
			require.Equal(t, sumOf(body).Hex+"  a.qcow2\n", string(side), "of the disk, not of the download")

			corrupt(t, d.Path, 200_000)
			d, err = Ensure(t.Context(), home, s, Report{})
			require.NoError(t, err)
			require.True(t, d.Downloaded)
			requireDisk(t, body, d)
			// Without its facts nobody knows what the disk should be.
			require.NoError(t, os.Remove(filepath.Join(filepath.Dir(d.Path), factsName)))
			d, err = Ensure(t.Context(), home, s, Report{})
			require.NoError(t, err)
			require.True(t, d.Downloaded)
			after, _ := o.counts()
			require.Equal(t, 3, after-before)
		})
	}
}

// A packed image that is what its digest says, and yet no disk.
func TestPackedRefused(t *testing.T) {
	o := newOrigin(t)
	evil := with(func(b []byte) {
		copy(b[8:], []byte{0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 11})
		copy(b[200:], "/etc/shadow")
	})
	for name, body := range map[string][]byte{
		"cut": pack(t, unpack.XZ, diskBytes(1, 100_000))[:50_000], "garbage after": append(pack(t, unpack.Zstd, diskBytes(1, 1000)), "garbage"...),
		"text in it": pack(t, unpack.Gzip, []byte("hello")), "packed twice": pack(t, unpack.Gzip, pack(t, unpack.XZ, diskBytes(1, 1000))),
		"backing file in it": pack(t, unpack.Zstd, evil), "a tar": pack(t, unpack.XZ, append([]byte("disk.raw\x00"), make([]byte, 10239)...)),
	} {
		home := newHome(t)
		s := o.put("disk.img", body)
		_, err := Ensure(t.Context(), home, s, Report{})
		require.Error(t, err, name)
		var help interface{ Hint() string }
		require.ErrorAs(t, err, &help, name)
		require.NotEmpty(t, help.Hint())
		require.Equal(t, []string{lockName}, names(t, filepath.Join(home, "images", "sha512-"+s.Digest.Hex[:32])), name)
		require.NotContains(t, err.Error(), home, name)
	}
}

// A run that ends while it unpacks leaves the download to the next.
func TestUnpackingCancelled(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(1, 3<<20)
	s := o.put("disk.img", pack(t, unpack.Gzip, body))
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := Ensure(ctx, home, s, Report{Progress: func(phase string, _, _ int64) {
		if phase == "unpacking" {
			cancel(why)
		}
	}})
	require.ErrorIs(t, err, why)
	dir := filepath.Join(home, "images", "sha512-"+s.Digest.Hex[:32])
	require.Equal(t, []string{downloadName, lockName}, names(t, dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, unpackName), []byte("of a killed one"), 0o600))
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	requireDisk(t, body, d)
	gets, _ := o.counts()
	require.Equal(t, 1, gets)
}

func TestFullDiskIsARoomError(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{unix.ENOSPC, unix.EDQUOT, &unpack.LimitError{Limit: 1, Room: true}} {
		var room *RoomError
		require.ErrorAs(t, withRoom(dir, err), &room)
		require.Equal(t, dir, room.Path)
		require.NotEmpty(t, room.Error())
	}
	for _, err := range []error{unix.EIO, &unpack.LimitError{Limit: 1}} {
		require.Equal(t, err, withRoom(dir, err))
	}
	require.NoError(t, withRoom(dir, nil))
}
