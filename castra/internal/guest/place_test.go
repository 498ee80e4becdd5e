package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
)

// Where copies go is what cp does, in both directions.
func TestCopyPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		want     string // of the file's content "new"; "" is an error
		err      string
	}{
		"file to a name":                {from: "f", to: "g", want: "g"},
		"file over a file":              {from: "f", to: "old", want: "old"},
		"file into a directory":         {from: "f", to: "dir", want: "dir/f"},
		"file into a directory, slash":  {from: "f", to: "dir/", want: "dir/f"},
		"file through a link":           {from: "link", to: "g", want: "g"},
		"file into a linked directory":  {from: "f", to: "to dir", want: "dir/f"},
		"file over a directory":         {from: "f", to: "has"},
		"file into nothing":             {from: "f", to: "none/"},
		"directory to a name":           {from: "d", to: "e", want: "e/sub/f"},
		"directory into a directory":    {from: "d", to: "dir", want: "dir/d/sub/f"},
		"directory with slash":          {from: "d/", to: "dir", want: "dir/d/sub/f"},
		"directory merged under name":   {from: "d", to: "has", want: "has/d/sub/f"},
		"content of a directory":        {from: "d/.", to: "has/d", want: "has/d/sub/f"},
		"content to a name":             {from: "d/.", to: "e", want: "e/sub/f"},
		"directory over a file":         {from: "d", to: "old"},
		"directory over a file in one":  {from: "d", to: "bad"},
		"directory, and no parent":      {from: "d", to: "none/e"},
		"directory through a link":      {from: "d link", to: "e", want: "e/sub/f"},
		"named as an option":            {from: "-f", to: "-g", want: "-g"},
		"named as an option, into":      {from: "-f", to: "dir", want: "dir/-f"},
		"file into where none may be":   {from: "f", to: "old/g"},
		"directory into its own name":   {from: "d", to: "d name/", want: "d name/d/sub/f"},
		"file with a space into a name": {from: "a b", to: "c d", want: "c d"},
	} {
		t.Run(name, func(t *testing.T) {
			guests(t, func(t *testing.T, client *Client) {
				for _, up := range []bool{true, false} {
					from, to := copyPlaces(t)
					source, target := from+"/"+c.from, to+"/"+c.to
					copied := client.Download
					if up {
						copied = client.Upload
					}
					before := describe(t, to)
					err := copied(t.Context(), source, target)
					if c.want == "" {
						require.Error(t, err)
						require.Equal(t, before, describe(t, to), "an error must change nothing")
						continue
					}
					require.NoError(t, err)
					data, err := os.ReadFile(filepath.Join(to, c.want))
					require.NoError(t, err)
					require.Equal(t, "new", string(data))
					// All that was there is there, but for what was replaced.
					after := describe(t, to)
					for path := range before {
						require.Contains(t, after, path)
						if path != c.want {
							require.Equal(t, before[path], after[path])
						}
					}
				}
			})
		})
	}
}

// copyPlaces are a directory of sources and one of targets.
func copyPlaces(t *testing.T) (from, to string) {
	from, to = t.TempDir(), t.TempDir()
	for _, dir := range []string{from + "/d/sub", to + "/dir", to + "/has/f", to + "/has/d/sub", to + "/d name", to + "/bad"} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
	for path, text := range map[string]string{
		from + "/f": "new", from + "/-f": "new", from + "/a b": "new", from + "/d/sub/f": "new",
		to + "/old": "old", to + "/has/d/sub/kept": "kept", to + "/bad/d": "a file",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	require.NoError(t, os.Symlink("f", from+"/link"))
	require.NoError(t, os.Symlink("d", from+"/d link"))
	require.NoError(t, os.Symlink("dir", to+"/to dir"))
	require.NoError(t, os.Chmod(to+"/has/d", 0o711))
	return from, to
}

// A merge keeps the modes of the directories that are there: a copy to /tmp
// must not take its sticky bit away. It has more files than go in one move.
func TestCopyMerge(t *testing.T) {
	guests(t, func(t *testing.T, client *Client) {
		from, there, back := t.TempDir(), t.TempDir(), t.TempDir()
		require.NoError(t, os.MkdirAll(from+"/sub", 0o755))
		for i := range 120 {
			if has, err := client.hasTar(t.Context()); (err != nil || !has) && i == 10 {
				break // file by file, it is slow
			}
			require.NoError(t, os.WriteFile(fmt.Sprintf("%s/sub/f %d", from, i), []byte("new"), 0o644))
		}
		require.NoError(t, os.WriteFile(from+"/.dot", nil, 0o600))
		for _, to := range []string{there, back} {
			require.NoError(t, os.Mkdir(to+"/sub", 0o700))
			require.NoError(t, os.WriteFile(to+"/sub/f 7", []byte("old"), 0o400))
			require.NoError(t, os.Chmod(to, 0o777|fs.ModeSticky))
		}
		require.NoError(t, client.Upload(t.Context(), from+"/.", there))
		require.NoError(t, client.Download(t.Context(), from+"/.", back))
		want := describe(t, from)
		want["."], want["sub"] = "dtrwxrwxrwx", "drwx------"
		require.Equal(t, want, describe(t, there))
		require.Equal(t, want, describe(t, back))
	})
}

// Failure bank 81: whoever ends a transfer, what stood under the name stays,
// and nothing incomplete is left.
func TestCopyInterrupted(t *testing.T) {
	const size = 64 << 20
	why := errors.New("interrupted")
	for _, tree := range []bool{false, true} {
		for _, up := range []bool{true, false} {
			t.Run(fmt.Sprintf("tree %v, up %v", tree, up), func(t *testing.T) {
				guests(t, func(t *testing.T, client *Client) {
					from, to := t.TempDir()+"/f", t.TempDir()
					target := to + "/f"
					if tree {
						require.NoError(t, os.Mkdir(from, 0o755))
						require.NoError(t, os.Mkdir(target, 0o755))
						from, target = from+"/f", target+"/f"
					}
					require.NoError(t, os.WriteFile(from, nil, 0o644))
					require.NoError(t, os.Truncate(from, size))
					require.NoError(t, os.WriteFile(target, []byte("old"), 0o644))
					if tree {
						from, target = filepath.Dir(from)+"/.", filepath.Dir(target)
					}
					before := describe(t, to)
					ctx, cancel := context.WithCancelCause(t.Context())
					client.Progress = func(done int64) {
						if done > 100<<10 {
							cancel(why)
						}
					}
					copied := client.Download
					if up {
						copied = client.Upload
					}
					require.ErrorIs(t, copied(ctx, from, target), why)
					require.Equal(t, before, describe(t, to))
					client.Progress = nil
					require.NoError(t, client.Run(t.Context(), Command{Line: "true"}), "the connection lives on")
				})
			})
		}
	}
}

// The link may break as well.
func TestCopyConnectionLost(t *testing.T) {
	for _, up := range []bool{true, false} {
		server, login := fakeGuest(t, qemutest.SSHOptions{})
		client := dial(t, login)
		from, to := t.TempDir()+"/f", t.TempDir()
		require.NoError(t, os.WriteFile(from, nil, 0o644))
		require.NoError(t, os.Truncate(from, 64<<20))
		client.Progress = func(done int64) {
			if done > 100<<10 {
				go server.Close()
			}
		}
		copied := client.Download
		if up {
			copied = client.Upload
		}
		require.Error(t, copied(t.Context(), from, to+"/f"))
		require.NoFileExists(t, to+"/f")
	}
}

func TestCopyProgress(t *testing.T) {
	guests(t, func(t *testing.T, client *Client) {
		from, to := t.TempDir(), t.TempDir()
		const size = 300 << 10
		for _, name := range []string{"a", "b", "c"} {
			require.NoError(t, os.WriteFile(filepath.Join(from, name), bytes.Repeat([]byte("x"), size), 0o644))
		}
		require.NoError(t, os.WriteFile(filepath.Join(from, "empty"), nil, 0o644))
		for name, c := range map[string]struct {
			copied func(context.Context, string, string) error
			from   string
			want   int64
		}{
			"upload file":    {client.Upload, from + "/a", size},
			"upload tree":    {client.Upload, from, 3 * size},
			"upload empty":   {client.Upload, from + "/empty", 0},
			"download file":  {client.Download, from + "/a", size},
			"download tree":  {client.Download, from, 3 * size},
			"download empty": {client.Download, from + "/empty", 0},
		} {
			var told []int64 // with -race, also a proof of one call at a time
			client.Progress = func(done int64) { told = append(told, done) }
			require.NoError(t, c.copied(t.Context(), c.from, filepath.Join(to, name)), name)
			if c.want == 0 {
				require.Empty(t, told, name)
				continue
			}
			require.Greater(t, len(told), 1, name)
			require.IsIncreasing(t, told, name)
			require.Equal(t, c.want, told[len(told)-1], name)
		}
	})
}
