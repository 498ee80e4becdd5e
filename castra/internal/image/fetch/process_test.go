package fetch

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// child prepares a run of this binary as one of children.
func child(t testing.TB, name, arg string, env ...string) *exec.Cmd {
	exe, err := os.Executable()
	require.NoError(t, err)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, ca().pem(), 0o600))
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^$", arg)
	cmd.Env = append([]string{childVariable + "=" + name, "SSL_CERT_FILE=" + bundle, "SSL_CERT_DIR=/nonexistent"}, env...)
	return cmd
}

func getArg(t testing.TB, r Request) string {
	text, err := json.Marshal(map[string]any{"URL": r.URL, "Digest": r.Digest, "Size": r.Size, "Part": r.Part, "Limits": r.Limits})
	require.NoError(t, err)
	return string(text)
}

// onlyLinux skips where Go does not read SSL_CERT_FILE.
func onlyLinux(t testing.TB) {
	if runtime.GOOS != "linux" {
		t.Skip("the child trusts the tests' CA by SSL_CERT_FILE, which is read on Linux")
	}
}

// Killed again and again, the download still goes on where it stopped.
func TestKilledClientResumes(t *testing.T) {
	onlyLinux(t)
	img := newImage(8 << 20)
	const kills = 6
	release := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if n > kills {
			serveImage(w, r, img, `"v1"`)
			return
		}
		serveImage(&gate{w, 1<<20 + 12345, release, r}, r, img, `"v1"`)
	})
	defer close(release)
	r := request(t, s.URL, img)
	r.Size = int64(len(img.data))
	for n := range kills {
		cmd := child(t, "get", getArg(t, r))
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool {
			st, err := os.Stat(r.Part)
			return err == nil && st.Size() >= int64(n+1)*(1<<20)
		}, 30*time.Second, time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
	}
	require.NoError(t, Get(t.Context(), r))
	requireWhole(t, r, img)
	require.Equal(t, kills+1, s.asked())
	for n := 2; n <= kills+1; n++ {
		require.GreaterOrEqual(t, rest(&http.Request{Header: http.Header{"Range": {s.header(n, "Range")}}}), (n-1)<<20)
	}
}

// gate lets so many bytes pass, and no more before it is released or the
// client is gone.
type gate struct {
	http.ResponseWriter
	left    int
	release chan struct{}
	r       *http.Request
}

func (g *gate) Write(p []byte) (int, error) {
	if g.left > len(p) {
		g.left -= len(p)
		return g.ResponseWriter.Write(p)
	}
	_, _ = g.ResponseWriter.Write(p[:g.left])
	g.ResponseWriter.(http.Flusher).Flush()
	select {
	case <-g.release:
	case <-g.r.Context().Done():
	}
	panic(http.ErrAbortHandler)
}

// The default client finds its proxy and its CA in the environment; TMPDIR is
// not used, so that the part never has to cross file systems.
func TestEnvironment(t *testing.T) {
	onlyLinux(t)
	img := newImage(imageSize)
	s := serve(t, content(img))
	p := startProxy(t, map[string]string{"images.test:443": s.Listener.Addr().String()})
	r := request(t, "https://images.test/disk.qcow2", img)
	out, err := child(t, "get", getArg(t, r), "HTTPS_PROXY="+p.url.String(), "TMPDIR=/nonexistent").CombinedOutput()
	require.NoError(t, err, string(out))
	requireWhole(t, r, img)
	require.EqualValues(t, 1, p.connected.Load())

	r = request(t, "https://images.test/disk.qcow2", img)
	out, err = child(t, "get", getArg(t, r), "HTTPS_PROXY=http://me:s3cret@127.0.0.1:1").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "refused")
	require.NotContains(t, string(out), "s3cret")
	require.NotContains(t, string(out), "tries", "a proxy that is not there is not waited for")

	r = request(t, s.URL, img)
	out, err = child(t, "get", getArg(t, r), "SSL_CERT_FILE=/nonexistent").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "unknown authority")
}

// Memory does not grow with the body.
func TestMemoryIsBounded(t *testing.T) {
	allocated := func(size int64) uint64 {
		block := bytes.Repeat([]byte("castra: "), 1<<13)
		s := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
			for n := int64(0); n < size; n += int64(len(block)) {
				_, _ = w.Write(block)
			}
		})
		defer s.Close()
		img := image{digest: digestOf(bytes.Repeat(block, int(size)/len(block)))}
		r := request(t, s.URL, img)
		r.Size = size
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		require.NoError(t, Get(t.Context(), r))
		runtime.ReadMemStats(&after)
		require.NoError(t, os.Remove(r.Part))
		return after.TotalAlloc - before.TotalAlloc
	}
	allocated(1 << 20) // warms up pools
	small, large := allocated(4<<20), allocated(64<<20)
	t.Logf("allocated for 4 MiB: %d bytes, for 64 MiB: %d", small, large)
	// The race detector makes the TLS code's pools forget some of their buffers;
	// without it, both are below 3 MiB.
	require.Less(t, large, uint64(16<<20))
}

func TestFullDisk(t *testing.T) {
	img := newImage(4 << 20)
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		w.Header().Set("ETag", `"v1"`)
		chunked(img.data)(w, r, 1)
	})
	for name, size := range map[string]int64{"size known": int64(len(img.data)), "size not known": 0} {
		t.Run(name, func(t *testing.T) {
			r := request(t, s.URL, img)
			r.Size, r.Limits.Retries = size, -1
			cmd := child(t, "fulldisk", getArg(t, r))
			if !unshare(cmd) {
				t.Skip("file systems can be mounted for a test on Linux only")
			}
			out, err := cmd.CombinedOutput()
			if strings.Contains(string(out), "cannot mount") || err != nil && cmd.ProcessState == nil {
				t.Skip(string(out), err)
			}
			require.NoError(t, err, string(out))
			if size > 0 {
				require.Contains(t, string(out), "no space left on device (0 bytes are there, it needs 4194304 bytes more)")
			} else {
				require.Regexp(t, `no space left on device \([1-9][0-9]* bytes are there, it needs an unknown number`, string(out))
			}
			require.Contains(t, string(out), r.Part)
		})
	}
}
