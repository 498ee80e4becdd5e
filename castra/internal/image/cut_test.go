package image

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/soak"
)

const envServe = "CASTRA_TEST_SERVE"

// serving is what a re-executed test binary serves: File, up to its byte Cut, where it stops and waits; all of it where Cut is -1.
type serving struct {
	File, Address string
	Cut           int64
}

// tag is the ETag of what the tests here serve.
const tag = `"v1"`

// init makes of the re-executed test binary a server, which says where it is, what is asked of it, and when it has come to the cut.
func init() {
	var s serving
	if json.Unmarshal([]byte(os.Getenv(envServe)), &s) != nil {
		return
	}
	body, err := os.ReadFile(s.File)
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", s.Address)
	if err != nil {
		panic(err)
	}
	fmt.Println("at", l.Addr())
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("asked %s %s\n", r.Header.Get("Range"), r.Header.Get("If-Range"))
		serveUpTo(w, r, body, s.Cut, func() { fmt.Println("cut") })
	}))
}

// serveUpTo serves body. Where the answer would go beyond the body's byte cut, it calls reached there and waits until the client
// is gone.
func serveUpTo(w http.ResponseWriter, r *http.Request, body []byte, cut int64, reached func()) {
	w.Header().Set("ETag", tag)
	if cut >= 0 && r.Header.Get("Range") == "" {
		w = &upTo{w, cut, func() {
			reached()
			<-r.Context().Done()
		}}
	}
	http.ServeContent(w, r, "", time.Time{}, struct{ io.ReadSeeker }{bytes.NewReader(body)}) // in pieces
}

// upTo lets so many bytes pass.
type upTo struct {
	http.ResponseWriter
	left    int64
	reached func()
}

func (u *upTo) Write(p []byte) (int, error) {
	if int64(len(p)) < u.left {
		u.left -= int64(len(p))
		return u.ResponseWriter.Write(p)
	}
	_, _ = u.ResponseWriter.Write(p[:u.left])
	_ = http.NewResponseController(u.ResponseWriter).Flush()
	u.reached()
	panic(http.ErrAbortHandler)
}

// process is a running child, and the lines it says.
type process struct {
	*exec.Cmd
	lines chan string
}

func start(t *testing.T, env string, task any) *process {
	t.Helper()
	text, err := json.Marshal(task)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), env+"="+string(text))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd, make(chan string, 100)}
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			p.lines <- scan.Text()
		}
		close(p.lines)
	}()
	return p
}

// hear waits for a line that begins so, and gives the rest of it.
func (p *process) hear(t *testing.T, begin string) string {
	t.Helper()
	for {
		select {
		case line, ok := <-p.lines:
			require.True(t, ok, "it ended before it said %q", begin)
			if rest, found := strings.CutPrefix(line, begin); found {
				return strings.TrimSpace(rest)
			}
		case <-time.After(time.Minute):
			t.Fatalf("it does not say %q", begin)
		}
	}
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	_ = p.Process.Kill()
	for range p.lines { // Wait closes the pipe
	}
	_ = p.Wait()
}

// cutPoints are n bytes of a body of that size at which it is cut, both ends among them.
func cutPoints(n int, size int64) []int64 {
	points := []int64{0, size, 1, size - 1}
	for i := int64(1); len(points) < n; i++ {
		points = append(points, i*size/int64(n))
	}
	return points[:n]
}

// eachCut runs a test for each cut, four at once.
func eachCut(t *testing.T, n int, size int64, test func(t *testing.T, i int, cut int64)) (passed int) {
	var done atomic.Int64
	t.Run("cuts", func(t *testing.T) {
		slots := make(chan struct{}, 4)
		for i, cut := range cutPoints(n, size) {
			t.Run(fmt.Sprint(cut), func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				test(t, i, cut)
				done.Add(1)
			})
		}
	})
	return int(done.Load())
}

// noDisk tells that nothing has the final name.
func noDisk(t *testing.T, home string, s Source) {
	t.Helper()
	_, ok := Find(home, s)
	require.False(t, ok)
	key, err := s.key()
	require.NoError(t, err)
	entries, err := os.ReadDir(filepath.Join(home, imagesDir, key))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	for _, e := range entries {
		require.False(t, slices.Contains(diskNames, e.Name()), e.Name())
	}
}

// Fault D1: the client is killed when it has been sent so many bytes. The next one goes on behind the last byte that is on disk.
func TestClientKilledAtAnyByteSoak(t *testing.T) {
	body := diskBytes(1, 1<<20+123)
	size := int64(len(body))
	var resumed atomic.Int64
	passed := eachCut(t, soak.N(6, 50), size, func(t *testing.T, i int, cut int64) {
		var mu sync.Mutex
		var asked []http.Header
		reached := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked = append(asked, r.Header.Clone())
			first := len(asked) == 1
			mu.Unlock()
			if !first {
				cut = -1
			}
			serveUpTo(w, r, body, cut, func() { close(reached) })
		}))
		defer server.Close()
		home := newHome(t)
		s := Source{Name: "test", URL: "https://images.invalid/a/disk.img", Digest: sumOf(body), Size: size, Mirror: server.URL}
		key, err := s.key()
		require.NoError(t, err)
		part := filepath.Join(home, imagesDir, key, downloadName)
		client := start(t, envEnsure, ensuring{home, s})
		<-reached
		onDisk := func() int64 {
			st, err := os.Stat(part)
			if err != nil {
				return 0
			}
			return st.Size()
		}
		if i%2 == 1 && cut < size { // else: while some bytes are in the air
			const buffer = 256 << 10 // of fetch: what may be lost
			require.Eventually(t, func() bool { return onDisk() >= cut-buffer }, 30*time.Second, time.Millisecond)
		}
		client.kill()
		var left int64
		if cut < size {
			noDisk(t, home, s)
			left = onDisk()
			require.LessOrEqual(t, left, cut)
		}
		d, err := Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err)
		requireDisk(t, body, d)
		if cut == size { // it may have been done
			return
		}
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, asked, 2)
		if left > 0 {
			require.Equal(t, fmt.Sprintf("bytes=%d-", left), asked[1].Get("Range"))
			require.Equal(t, tag, asked[1].Get("If-Range"))
			resumed.Add(1)
		} else {
			require.Empty(t, asked[1].Get("Range"))
		}
	})
	require.Positive(t, resumed.Load())
	soak.AtLeast(t, "D1", "cut points with the client killed, bytes equal", 50, float64(passed))
}

// Fault D1: the server is killed when it has sent so many bytes, and another one takes its place. The client goes on by itself, or
// when it is run again where it had not had one byte.
func TestServerKilledAtAnyByteSoak(t *testing.T) {
	body := diskBytes(2, 1<<20+123)
	size := int64(len(body))
	file := filepath.Join(t.TempDir(), "served")
	require.NoError(t, os.WriteFile(file, body, 0o600))
	var resumed atomic.Int64
	passed := eachCut(t, soak.N(6, 50), size, func(t *testing.T, _ int, cut int64) {
		home := newHome(t)
		server := start(t, envServe, serving{file, "127.0.0.1:0", cut})
		at := server.hear(t, "at ")
		s := Source{Name: "test", URL: "https://images.invalid/a/disk.img", Digest: sumOf(body), Size: size, Mirror: "http://" + at}
		client := start(t, envEnsure, ensuring{home, s})
		server.hear(t, "cut")
		if cut < size {
			noDisk(t, home, s)
		}
		server.kill()
		server = start(t, envServe, serving{file, at, -1})
		defer server.kill()
		server.hear(t, "at ")
		var said string
		for line := range client.lines {
			said = line
		}
		_ = client.Wait()
		if strings.HasPrefix(said, "failed") {
			require.Zero(t, cut, said)
		} else {
			require.True(t, strings.HasPrefix(said, "done true "), said)
		}
		d, err := Ensure(t.Context(), home, s, Report{})
		require.NoError(t, err)
		requireDisk(t, body, d)
		if cut < size {
			how := server.hear(t, "asked ")
			if cut > 0 {
				require.Equal(t, fmt.Sprintf("bytes=%d- %s", cut, tag), how)
				resumed.Add(1)
			}
		}
	})
	require.Positive(t, resumed.Load())
	soak.AtLeast(t, "D1", "cut points with the server killed, bytes equal", 50, float64(passed))
}
