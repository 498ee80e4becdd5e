package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/image/digest"
)

// diskBytes is a plain qcow2 header with noise after it.
func diskBytes(seed int64, size int) []byte {
	b := make([]byte, size)
	rand.New(rand.NewSource(seed)).Read(b)
	copy(b, header())
	return b
}

func sumOf(b []byte) digest.Digest {
	sum := sha512.Sum512(b)
	return digest.Digest{Algorithm: digest.SHA512, Hex: hex.EncodeToString(sum[:])}
}

func sum256Of(b []byte) digest.Digest {
	sum := sha256.Sum256(b)
	return digest.Digest{Algorithm: digest.SHA256, Hex: hex.EncodeToString(sum[:])}
}

// origin is an image server that counts.
type origin struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string][]byte
	gets   int   // requests
	sent   int64 // bytes of bodies
	ranges []string
	slow   time.Duration // between pieces of 64 KiB
}

func newOrigin(t testing.TB) *origin {
	o := &origin{files: map[string][]byte{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	o.mu.Lock()
	o.gets++
	body, ok := o.files[name]
	slow := o.slow
	if r.Header.Get("Range") != "" {
		o.ranges = append(o.ranges, r.Header.Get("Range"))
	}
	o.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", strconv.Quote(sumOf(body).Hex[:16]))
	http.ServeContent(&counted{w, o, slow}, r, name, time.Time{}, bytes.NewReader(body))
}

type counted struct {
	http.ResponseWriter
	o    *origin
	slow time.Duration
}

func (c *counted) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := c.ResponseWriter.Write(p[done:min(len(p), done+64<<10)])
		done += n
		c.o.mu.Lock()
		c.o.sent += int64(n)
		c.o.mu.Unlock()
		if err != nil {
			return done, err
		}
		if c.slow > 0 {
			c.ResponseWriter.(http.Flusher).Flush()
			time.Sleep(c.slow)
		}
	}
	return done, nil
}

// counts gives the requests and the bytes sent so far.
func (o *origin) counts() (gets int, sent int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gets, o.sent
}

// put serves a file and gives its source.
func (o *origin) put(name string, body []byte) Source {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files[name] = body
	return Source{Name: "test", URL: "https://images.invalid/a/" + name, Digest: sumOf(body), Size: int64(len(body)), Mirror: o.URL}
}

// slowDown makes the server wait after each 64 KiB.
func (o *origin) slowDown(wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.slow = wait
}

func newHome(t testing.TB) string {
	home := filepath.Join(t.TempDir(), "home")
	require.NoError(t, os.Mkdir(home, 0o700))
	return home
}

// names lists the image's directory.
func names(t testing.TB, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func requireDisk(t testing.TB, want []byte, d Disk) {
	got, err := os.ReadFile(d.Path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "the contents of %s", d.Path)
	require.EqualValues(t, len(want), d.Bytes)
	st, err := os.Lstat(d.Path)
	require.NoError(t, err)
	require.Equal(t, readOnly, st.Mode())
	require.Equal(t, []string{filepath.Base(d.Path), factsName, lockName}, names(t, filepath.Dir(d.Path)))
}

// settle waits until the times of what was written tell of later writes.
func settle() { time.Sleep(2100 * time.Millisecond) }

func TestEnsure(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(1, 300_000)
	s := o.put("disk.img", body)
	_, ok := Find(home, s)
	require.False(t, ok)
	require.Empty(t, names(t, home), "Find writes nothing")

	phases := map[string]int64{}
	d, err := Ensure(t.Context(), home, s, Report{Progress: func(phase string, done, _ int64) { phases[phase] = done }})
	require.NoError(t, err)
	require.True(t, d.Downloaded)
	require.Zero(t, d.Hashed)
	require.Equal(t, map[string]int64{"downloading": int64(len(body))}, phases)
	require.Equal(t, filepath.Join(home, "images", "sha512-"+s.Digest.Hex[:32], "disk.qcow2"), d.Path)
	require.Equal(t, FormatQcow2, d.Format)
	require.EqualValues(t, 1<<20, d.VirtualSize)
	require.Equal(t, s.Digest, d.Digest)
	requireDisk(t, body, d)
	found, ok := Find(home, s)
	require.True(t, ok)
	d.Downloaded = false
	require.Equal(t, d, found)

	// Just written, so the digest is taken again; then not any more.
	settle()
	again, err := Ensure(t.Context(), home, s, Report{Progress: func(phase string, done, _ int64) { phases[phase] = done }})
	require.NoError(t, err)
	require.Positive(t, again.Hashed)
	require.EqualValues(t, len(body), phases["verifying"])
	again, err = Ensure(t.Context(), home, s, Report{Progress: func(string, int64, int64) { t.Error("nothing is to be done") }})
	require.NoError(t, err)
	require.Equal(t, d, again)
	gets, sent := o.counts()
	require.Equal(t, 1, gets)
	require.EqualValues(t, len(body), sent)
}

func TestEnsureKinds(t *testing.T) {
	o := newOrigin(t)
	raw := make([]byte, 200<<10)
	copy(raw[100<<10:], "the file system")
	raw[510], raw[511] = 0x55, 0xaa
	s := o.put("disk.raw", raw)
	s.Digest, s.Size, s.Mirror = sum256Of(raw), 0, o.URL+"/some/dir/"
	home := newHome(t)
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(home, "images", "sha256-"+s.Digest.Hex[:32], "disk.raw"), d.Path)
	require.EqualValues(t, len(raw), d.VirtualSize)
	requireDisk(t, raw, d)

	// A mirror that is a directory.
	mirror := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(mirror, "disk.raw"), raw, 0o600))
	for _, m := range []string{mirror, "file://" + mirror} {
		s.Mirror = m
		d, err = Ensure(t.Context(), newHome(t), s, Report{})
		require.NoError(t, err)
		requireDisk(t, raw, d)
	}
	require.FileExists(t, filepath.Join(mirror, "disk.raw"))
}

func TestEnsureRefuses(t *testing.T) {
	o := newOrigin(t)
	s := o.put("disk.img", diskBytes(1, 4096))
	for name, change := range map[string]func(*Source){
		"no digest":    func(s *Source) { s.Digest = digest.Digest{} },
		"short digest": func(s *Source) { s.Digest.Hex = "abcd" },
		"upper case":   func(s *Source) { s.Digest.Hex = "AB" + s.Digest.Hex[2:] },
		"md5":          func(s *Source) { s.Digest.Algorithm = "md5" },
		"plain http":   func(s *Source) { s.URL, s.Mirror = s.Mirror+"/disk.img", "" },
		"no file name": func(s *Source) { s.URL = "https://images.invalid/" },
		"bad mirror":   func(s *Source) { s.Mirror = "http://user:secret@[" },
	} {
		bad := s
		change(&bad)
		_, err := Ensure(t.Context(), newHome(t), bad, Report{})
		require.Error(t, err, name)
		require.ErrorContains(t, err, "image test: ")
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := Ensure(t.Context(), "relative", s, Report{})
	require.ErrorContains(t, err, "not an absolute path")
	gets, _ := o.counts()
	require.Zero(t, gets)
}

// Failure bank 19: a file of another size is fetched again, whatever is
// recorded of it, and what was cut short never has the final name.
func TestTruncated(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(2, 200_000)
	s := o.put("disk.img", body)
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	for _, size := range []int64{0, 1, 100_000, 199_999, 200_001} {
		require.NoError(t, os.Truncate(d.Path, size))
		_, ok := Find(home, s)
		require.False(t, ok)
		d, err = Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err)
		require.True(t, d.Downloaded)
		require.Zero(t, d.Hashed)
		requireDisk(t, body, d)
	}
	gets, _ := o.counts()
	require.Equal(t, 6, gets)

	// The server has half of it alone.
	whole := s
	half := o.put("disk.img", body[:len(body)/2])
	half.Digest, half.Size = whole.Digest, 0
	_, err = Ensure(t.Context(), newHome(t), half, Report{})
	require.ErrorAs(t, err, new(*digest.MismatchError))
	other := newHome(t)
	_, err = Ensure(t.Context(), other, half, Report{})
	require.Error(t, err)
	_, ok := Find(other, half)
	require.False(t, ok)
	require.Equal(t, []string{lockName}, names(t, filepath.Join(other, "images", filepath.Base(filepath.Dir(d.Path)))))
}

// Failure bank 26: nothing depends on TMPDIR.
func TestNoTemporaryDirectory(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(3, 100_000)
	s, place := o.put("disk.img", body), filepath.Join(t.TempDir(), "disk.qcow2")
	t.Setenv("TMPDIR", filepath.Join(home, "no", "such"))
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	requireDisk(t, body, d)
	require.NoError(t, Place(t.Context(), d, place))
}

// Failure bank 28: what is cached needs no network, with or without its facts.
func TestOffline(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(4, 100_000)
	s := o.put("disk.img", body)
	_, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, "http://"+l.Addr().String())
	}
	o.Close()
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.False(t, d.Downloaded)
	for _, facts := range []string{"", "{", "{}", "null", `{"format": 99}`} {
		file := filepath.Join(filepath.Dir(d.Path), factsName)
		require.NoError(t, os.Remove(file))
		if facts != "" {
			require.NoError(t, os.WriteFile(file, []byte(facts), 0o600))
		}
		d, err = Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err)
		require.False(t, d.Downloaded)
		require.Positive(t, d.Hashed, "it was hashed here")
		requireDisk(t, body, d)
	}
}

// Failure bank 29.
func TestCorruptedIsFetchedOnce(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(5, 100_000)
	s := o.put("disk.img", body)
	_, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	settle()
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	facts := filepath.Join(filepath.Dir(d.Path), factsName)
	older, err := os.ReadFile(facts)
	require.NoError(t, err)
	require.Contains(t, string(older), "mtime_ns", "its identity is known")
	open, err := os.Open(d.Path) // as a VM has it
	require.NoError(t, err)
	defer open.Close()

	corrupt(t, d.Path, 50_000)
	d, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.True(t, d.Downloaded)
	requireDisk(t, body, d)
	gets, _ := o.counts()
	require.Equal(t, 2, gets)

	for range 3 {
		d, err = Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err)
		require.False(t, d.Downloaded)
	}
	settle()
	d, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(d.Path, time.Time{}, time.Now().Add(-time.Hour)))
	d, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.Positive(t, d.Hashed, "only its times changed: it is hashed")
	require.False(t, d.Downloaded)

	require.NoError(t, os.WriteFile(facts, older, 0o600))
	d, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.Positive(t, d.Hashed, "facts of the file before this one")
	require.False(t, d.Downloaded)
	corrupt(t, d.Path, 7)
	require.NoError(t, os.WriteFile(facts, older, 0o600))
	d, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.True(t, d.Downloaded)
	gets, _ = o.counts()
	require.Equal(t, 3, gets)

	// Failure bank 33: who has the old file open has it still.
	was := make([]byte, len(body))
	_, err = open.ReadAt(was, 0)
	require.NoError(t, err)
	require.False(t, bytes.Equal(body, was))
	was[50_000] ^= 1
	require.True(t, bytes.Equal(body, was))
}

// corrupt flips a bit of a file in place.
func corrupt(t testing.TB, file string, at int64) {
	require.NoError(t, os.Chmod(file, 0o600))
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
}

// Whatever a crash leaves is taken up without a transfer, or checked.
func TestAfterACrash(t *testing.T) {
	o, body := newOrigin(t), diskBytes(6, 100_000)
	s := o.put("disk.img", body)
	for name, c := range map[string]struct {
		leave func(t *testing.T, d Disk, in func(string) string)
		gets  int
	}{
		"a whole download": {func(t *testing.T, d Disk, in func(string) string) {
			require.NoError(t, os.Remove(in(factsName)))
			require.NoError(t, os.Rename(d.Path, in(downloadName)))
			require.NoError(t, os.Chmod(in(downloadName), 0o600))
		}, 1},
		"facts before the rename": {func(t *testing.T, d Disk, in func(string) string) {
			require.NoError(t, os.Rename(d.Path, in(downloadName)))
			require.NoError(t, os.Chmod(in(downloadName), 0o600))
		}, 1},
		"a disk without facts": {func(t *testing.T, _ Disk, in func(string) string) { require.NoError(t, os.Remove(in(factsName))) }, 1},
		"half facts":           {func(t *testing.T, _ Disk, in func(string) string) { require.NoError(t, os.Truncate(in(factsName), 50)) }, 1},
		"a disk with its mode": {func(t *testing.T, d Disk, _ func(string) string) { require.NoError(t, os.Chmod(d.Path, 0o600)) }, 1},
		"facts beside nothing": {func(t *testing.T, d Disk, _ func(string) string) { require.NoError(t, os.Remove(d.Path)) }, 2},
		"facts half written": {func(t *testing.T, _ Disk, in func(string) string) {
			require.NoError(t, os.WriteFile(in(besideName(factsName)), []byte("{"), 0o600))
			require.NoError(t, os.Remove(in(factsName)))
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			home := newHome(t)
			before, _ := o.counts()
			d, err := Ensure(t.Context(), home, s, Report{})
			require.NoError(t, err)
			c.leave(t, d, func(n string) string { return filepath.Join(filepath.Dir(d.Path), n) })
			d, err = Ensure(t.Context(), home, s, Report{})
			require.NoError(t, err)
			requireDisk(t, body, d)
			after, _ := o.counts()
			require.Equal(t, c.gets, after-before)
		})
	}
}

// After a boot of the computer the digest is taken once.
func TestAfterABoot(t *testing.T) {
	o, home, body := newOrigin(t), newHome(t), diskBytes(7, 100_000)
	s := o.put("disk.img", body)
	d, err := Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	settle()
	_, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	file := filepath.Join(filepath.Dir(d.Path), factsName)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(data), host.BootID())
	require.NoError(t, os.WriteFile(file, bytes.ReplaceAll(data, []byte(host.BootID()), []byte("another")), 0o600))
	d, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.Positive(t, d.Hashed)
	d, err = Ensure(t.Context(), home, s, Report{})
	require.NoError(t, err)
	require.Zero(t, d.Hashed)
}

func TestNoRoom(t *testing.T) {
	o, home := newOrigin(t), newHome(t)
	s := o.put("disk.img", diskBytes(8, 4096))
	s.Size = 1 << 60
	_, err := Ensure(t.Context(), home, s, Report{})
	var room *RoomError
	require.ErrorAs(t, err, &room)
	require.EqualValues(t, 1<<60, room.Needed)
	require.Positive(t, room.Free)
	require.NotEmpty(t, room.Hint())
	gets, _ := o.counts()
	require.Zero(t, gets)
}

// A wait for another process is told of once, and ends with ctx.
func TestWaiting(t *testing.T) {
	o, home := newOrigin(t), newHome(t)
	s := o.put("disk.img", diskBytes(9, 4096))
	key, err := s.key()
	require.NoError(t, err)
	dir := filepath.Join(home, "images", key)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	l := flock.New(filepath.Join(dir, lockName))
	require.NoError(t, l.Lock())
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	told := 0
	_, err = Ensure(ctx, home, s, Report{Waiting: func(what string) {
		told++
		require.Contains(t, what, "test")
		time.AfterFunc(4*lockPoll, func() { cancel(why) })
	}})
	require.ErrorIs(t, err, why)
	require.Equal(t, 1, told)

	// A directory that is removed meanwhile is made anew.
	done := make(chan error, 1)
	waits := make(chan bool)
	go func() {
		_, err := Ensure(t.Context(), home, s, Report{Waiting: func(string) { close(waits) }})
		done <- err
	}()
	<-waits
	require.NoError(t, os.Rename(dir, filepath.Join(home, "images", ".gone-0123456789abcdef")))
	require.NoError(t, <-done)
	require.NoError(t, l.Unlock())
	_, ok := Find(home, s)
	require.True(t, ok)
}
