package guest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"castra.example/castra/castra/internal/qemutest"
)

var posix = []string{"sh", "cat", "chmod", "ln", "mkdir", "mv", "rm", "wc", "readlink", "stat"}

// guests are a guest with tar and one without.
func guests(t *testing.T, test func(t *testing.T, client *Client)) {
	t.Run("tar", func(t *testing.T) {
		_, login := fakeGuest(t, qemutest.SSHOptions{})
		test(t, dial(t, login))
	})
	t.Run("no tar", func(t *testing.T) { test(t, dial(t, bareGuest(t, posix...))) })
}

// oddTree has what copies tend to lose.
func oddTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for _, d := range []string{"", "empty dir", ".hidden", "a/b/c", "new\nline", "-rf", strings.Repeat("long", 40) + "/" + strings.Repeat("deep", 40)} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	binary := make([]byte, 300<<10)
	for i := range binary {
		binary[i] = byte(i * i >> 3)
	}
	for name, f := range map[string]struct {
		data string
		mode fs.FileMode
	}{
		"run.sh": {"#!/bin/sh\n", 0o755}, "plain": {"text\r\nwith CRLF\r\n", 0o644}, "empty": {"", 0o600},
		".dotfile": {".", 0o640}, "..two": {"..", 0o644}, "with space": {" ", 0o644}, "new\nline/f\n": {"\n", 0o644},
		"a/b/c/binary": {string(binary), 0o444}, "-rf/-x": {"-", 0o644}, "it's \"$HOME\"`": {"'", 0o644}, "umlaut ä \xff": {"ä", 0o644},
		strings.Repeat("long", 40) + "/" + strings.Repeat("deep", 40) + "/file": {"long", 0o644},
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(f.data), 0o600))
		require.NoError(t, os.Chmod(path, f.mode))
	}
	require.NoError(t, os.Symlink("run.sh", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("a/b", filepath.Join(dir, "link to dir")))
	require.NoError(t, os.Symlink("not there\n", filepath.Join(dir, "dangling")))
	require.NoError(t, os.Symlink("../../plain", filepath.Join(dir, "a/b/up")))
	require.NoError(t, os.Chmod(filepath.Join(dir, "empty dir"), 0o700))
	require.NoError(t, os.Chmod(filepath.Join(dir, "a/b"), 0o550))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "a/b"), 0o700) })
	return dir
}

// describe lists a tree: name, mode, and content or target.
func describe(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		name, _ := filepath.Rel(dir, path)
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			require.NoError(t, err)
			found[name] = "-> " + target
		case fs.ModeDir:
			found[name] = info.Mode().String()
		default:
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			found[name] = info.Mode().String() + " " + string(data)
		}
		return nil
	}))
	return found
}

func TestCopyTree(t *testing.T) {
	guests(t, func(t *testing.T, client *Client) {
		tree := oddTree(t)
		there := filepath.Join(t.TempDir(), "it's there")
		require.NoError(t, client.Upload(t.Context(), tree, there))
		require.Equal(t, describe(t, tree), describe(t, there))
		t.Cleanup(func() { _ = os.Chmod(filepath.Join(there, "a/b"), 0o700) })

		back := filepath.Join(t.TempDir(), "back")
		require.NoError(t, client.Download(t.Context(), there, back))
		want, got := describe(t, tree), describe(t, back)
		delete(want, ".") // made here, with the modes of here
		delete(got, ".")
		require.Equal(t, want, got)

		// Again, over what is there.
		require.NoError(t, client.Upload(t.Context(), tree+"/.", there))
		require.Equal(t, describe(t, tree), describe(t, there))
		require.NoError(t, client.Download(t.Context(), there+"/.", back))
		got = describe(t, back)
		delete(got, ".")
		require.Equal(t, want, got)
	})
}

func TestCopyFile(t *testing.T) {
	guests(t, func(t *testing.T, client *Client) {
		here, there, back := t.TempDir(), t.TempDir(), t.TempDir()
		for name, mode := range map[string]fs.FileMode{"-n": 0o644, "empty": 0o600, "run me": 0o755} {
			data := bytes.Repeat([]byte(name), 100_000)
			if name == "empty" {
				data = nil
			}
			require.NoError(t, os.WriteFile(filepath.Join(here, name), data, 0o600))
			require.NoError(t, os.Chmod(filepath.Join(here, name), mode))
			require.NoError(t, client.Upload(t.Context(), filepath.Join(here, name), filepath.Join(there, name)))
			require.NoError(t, client.Download(t.Context(), filepath.Join(there, name), filepath.Join(back, name)))
		}
		want := describe(t, here)
		for _, dir := range []string{there, back} {
			got := describe(t, dir)
			got["."] = want["."]
			require.Equal(t, want, got)
		}
	})
}

func TestCopyErrors(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	here, there := t.TempDir(), t.TempDir()
	file := filepath.Join(here, "f")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))

	err := client.Upload(t.Context(), file, filepath.Join(there, "no/such/dir/f"))
	require.ErrorContains(t, err, "upload "+file)
	require.ErrorContains(t, err, "no/such/dir: no such directory in the guest")
	var exit *ExitError
	require.ErrorAs(t, err, &exit)
	require.ErrorIs(t, client.Upload(t.Context(), filepath.Join(here, "none"), there), fs.ErrNotExist)
	require.ErrorContains(t, client.Upload(t.Context(), file, ""), "is empty")
	require.ErrorContains(t, client.Upload(t.Context(), "/dev/null", filepath.Join(there, "null")), "neither a file")

	require.ErrorContains(t, client.Download(t.Context(), filepath.Join(there, "none"), file), "no such file")
	require.ErrorContains(t, client.Download(t.Context(), "/dev/null", file), "neither a file nor a directory")
	require.NoError(t, os.WriteFile(filepath.Join(there, "g"), nil, 0o600))
	require.ErrorIs(t, client.Download(t.Context(), filepath.Join(there, "g"), filepath.Join(here, "no/such/g")), fs.ErrNotExist)
	require.ErrorIs(t, client.Download(t.Context(), there, filepath.Join(here, "no/such")), fs.ErrNotExist)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "x", string(data), "a failed download must leave the old file")
	entries, err := os.ReadDir(here)
	require.NoError(t, err)
	require.Len(t, entries, 1, "no partial file is left")
}

// script answers each session with fixed output and status 0, in turn.
func scripted(t *testing.T, answers ...string) *Client {
	t.Helper()
	next := make(chan string, len(answers))
	for _, a := range answers {
		next <- a
	}
	client := dial(t, hostileGuest(t, true, func(open ssh.NewChannel) {
		channel, requests := accept(open)
		go ssh.DiscardRequests(requests)
		_, _ = channel.Write([]byte(<-next))
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
		channel.Close()
	}))
	return client
}

// Symlinks that lead out, also one through another, names that do, and files
// through either: nothing outside the target may change.
func TestDownloadHostile(t *testing.T) {
	link := func(name, to string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
	}
	file := func(name string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 4}
	}
	dir := func(name string) *tar.Header { return &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
	for name, entries := range map[string][]*tar.Header{
		"dot dot":             {file("../canary")},
		"dot dot inside":      {dir("d"), file("d/../../canary")},
		"up and down":         {file("d/../x")},
		"absolute":            {file("/tmp/castra-canary")},
		"absolute link":       {link("l", "/etc/passwd")},
		"link up":             {link("l", "../canary")},
		"link up from a dir":  {dir("d"), link("d/l", "../../canary")},
		"file through a link": {link("l", ".."), file("l/canary")},
		"chain of links":      {dir("d"), link("d/top", ".."), link("l", "d/top/../canary")},
		"chain, then file":    {dir("d"), link("d/top", ".."), link("l", "d/top/.."), file("l/canary")},
		"hard link up":        {&tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../canary"}},
		"device":              {&tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}},
		"fifo":                {&tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"}},
		"loop":                {link("l", "m"), link("m", "l")},
	} {
		t.Run(name, func(t *testing.T) {
			var archive bytes.Buffer
			w := tar.NewWriter(&archive)
			for _, h := range entries {
				require.NoError(t, w.WriteHeader(h))
				_, err := w.Write(make([]byte, h.Size))
				require.NoError(t, err)
			}
			require.NoError(t, w.Close())
			parent := t.TempDir()
			canary := filepath.Join(parent, "canary")
			require.NoError(t, os.WriteFile(canary, []byte("safe"), 0o600))
			client := scripted(t, "directory\n", "", archive.String())
			require.Error(t, client.Download(t.Context(), "x", filepath.Join(parent, "to")))
			data, err := os.ReadFile(canary)
			require.NoError(t, err)
			require.Equal(t, "safe", string(data))
			outside, err := os.ReadDir(parent)
			require.NoError(t, err)
			require.Len(t, outside, 2)
			require.NoFileExists(t, "/tmp/castra-canary")
			// No link that leads out is left to be followed later either.
			left := os.DirFS(filepath.Join(parent, "to"))
			require.NoError(t, fs.WalkDir(left, ".", func(p string, d fs.DirEntry, err error) error {
				if resolved, err := filepath.EvalSymlinks(filepath.Join(parent, "to", p)); err == nil {
					require.True(t, strings.HasPrefix(resolved, filepath.Join(parent, "to")), "%s -> %s", p, resolved)
				}
				return err
			}))
		})
	}
}

func TestDownloadTruncated(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, Size: 1000}))
	_, err := w.Write(make([]byte, 1000))
	require.NoError(t, err)
	to := filepath.Join(t.TempDir(), "to")
	err = scripted(t, "directory\n", "", archive.String()[:900]).Download(t.Context(), "x", to)
	require.Error(t, err)
	entries, err := os.ReadDir(to)
	require.NoError(t, err)
	require.Empty(t, entries)

	for _, mode := range []string{"", "644", "worse\n", strings.Repeat("7", 10_000)} {
		require.Error(t, scripted(t, "file\n", mode).Download(t.Context(), "x", filepath.Join(to, "f")))
	}
}

// Setuid and friends are not brought here.
func TestDownloadModeBits(t *testing.T) {
	to := filepath.Join(t.TempDir(), "f")
	require.NoError(t, scripted(t, "file\n", "4755\ndata").Download(t.Context(), "x", to))
	info, err := os.Stat(to)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o755), info.Mode())
}

// Failure bank 81: a transfer that breaks is an error, and leaves no half
// script under its name.
func TestUploadBroken(t *testing.T) {
	_, login := fakeGuest(t, qemutest.SSHOptions{})
	client := dial(t, login)
	here := filepath.Join(t.TempDir(), "run.sh")
	require.NoError(t, os.WriteFile(here, bytes.Repeat([]byte("x"), 1<<20), 0o600))
	there := t.TempDir()
	target := filepath.Join(there, "run.sh")
	// The guest sees the input end early, as when the link breaks.
	script := fmt.Sprintf("set -- %s 755 %d part\n%s", Quote(target), 1<<20, receiveFile)
	err := client.Run(t.Context(), Command{Line: script, Stdin: strings.NewReader("half")})
	var exit *ExitError
	require.True(t, errors.As(err, &exit), "%v", err)
	entries, err := os.ReadDir(there)
	require.NoError(t, err)
	require.Empty(t, entries)
}
