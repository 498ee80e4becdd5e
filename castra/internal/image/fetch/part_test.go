package fetch

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What lies in the part's place and is not ours is refused and left alone.
func TestForeignParts(t *testing.T) {
	img := newImage(1000)
	s := serve(t, content(img))
	precious := filepath.Join(t.TempDir(), "precious")
	for name, c := range map[string]struct {
		place func(path string) error
		says  string
	}{
		"symbolic link":        {func(p string) error { return os.Symlink(precious, p) }, "symbolic link"},
		"dangling link":        {func(p string) error { return os.Symlink("/nonexistent/x", p) }, "symbolic link"},
		"hard link":            {func(p string) error { return os.Link(precious, p) }, "2 names"},
		"directory":            {func(p string) error { return os.Mkdir(p, 0o700) }, "directory"},
		"pipe":                 {func(p string) error { return unix.Mkfifo(p, 0o600) }, "no regular file"},
		"file of another user": {stranger(t), "belongs to user 12345"},
	} {
		for _, suffix := range []string{"", ".json", ".json.new"} {
			t.Run(name+suffix, func(t *testing.T) {
				require.NoError(t, os.WriteFile(precious, []byte("precious"), 0o600))
				r := request(t, s.URL, img)
				if suffix != "" {
					require.NoError(t, os.WriteFile(r.Part, img.data[:500], 0o600))
				}
				if err := c.place(r.Part + suffix); err != nil {
					t.Skip(err)
				}
				before, err := os.Lstat(r.Part + suffix)
				require.NoError(t, err)
				asked := s.asked()
				err = Get(t.Context(), r)
				var foreign *ForeignError
				require.ErrorAs(t, err, &foreign)
				require.Equal(t, r.Part+suffix, foreign.Path)
				require.ErrorContains(t, err, c.says)
				require.NotEmpty(t, foreign.Hint())
				after, err := os.Lstat(r.Part + suffix)
				require.NoError(t, err)
				require.True(t, os.SameFile(before, after))
				data, err := os.ReadFile(precious)
				require.NoError(t, err)
				require.Equal(t, "precious", string(data))
				if suffix != ".json.new" {
					require.Equal(t, asked, s.asked(), "nothing is fetched")
				}
			})
		}
	}
}

func stranger(t *testing.T) func(string) error {
	return func(path string) error {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		if err := os.Chown(path, 12345, -1); err != nil {
			require.NoError(t, os.Remove(path))
			return err
		}
		return nil
	}
}

func TestNoDirectoryForThePart(t *testing.T) {
	r := request(t, "https://127.0.0.1:1/", newImage(10))
	r.Part = filepath.Join(filepath.Dir(r.Part), "none", "download.part")
	require.ErrorIs(t, Get(t.Context(), r), os.ErrNotExist)
}

// A part that is removed or replaced while it grows is told of, and the file
// in its place is not touched.
func TestPartRemovedMeanwhile(t *testing.T) {
	img := newImage(imageSize)
	for name, instead := range map[string]func(string) error{
		"removed":  func(string) error { return nil },
		"replaced": func(p string) error { return os.WriteFile(p, []byte("other"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			var r Request
			s := serve(t, func(w http.ResponseWriter, req *http.Request, _ int) {
				if err := os.Remove(r.Part); err == nil {
					_ = instead(r.Part)
				}
				serveImage(w, req, img, `"v1"`)
			})
			r = request(t, s.URL, img)
			err := Get(t.Context(), r)
			var disk *DiskError
			require.ErrorAs(t, err, &disk)
			require.ErrorContains(t, err, "removed or replaced")
			if name == "replaced" {
				data, err := os.ReadFile(r.Part)
				require.NoError(t, err)
				require.Equal(t, "other", string(data))
			}
		})
	}
}

func TestReservedRoomIsGivenBack(t *testing.T) {
	img := newImage(64 << 20)
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) { serveImage(&cut{w, 1 << 20}, r, img, `"v1"`) })
	r := request(t, s.URL, img)
	r.Size, r.Limits.Retries = 64<<20, -1
	require.Error(t, Get(t.Context(), r))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(r.Part, &st))
	require.EqualValues(t, 1<<20, st.Size)
	require.LessOrEqual(t, st.Blocks*512, int64(8<<20))
}
