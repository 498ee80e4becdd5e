package fetch

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/soak"
)

// Fault D3: a server that sends more than there should be gets at most 1 MiB of the disk for it, at any time.
func TestEndlessBodiesSoak(t *testing.T) {
	img := newImage(imageSize)
	half := imageSize / 2
	var looks atomic.Pointer[func()] // at the part, from the server
	forever := func(head string) func(http.ResponseWriter, *http.Request, int) {
		return func(w http.ResponseWriter, _ *http.Request, _ int) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			for _, err = conn.Write([]byte(head)); err == nil; _, err = conn.Write(img.data) {
				(*looks.Load())()
			}
		}
	}
	rest := fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Range: bytes %d-%d/%d\r\nConnection: close\r\n\r\n", half, imageSize-1, imageSize)
	var most int64
	tried := 0
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request, int)
		sized  bool
		limit  int64 // of a body whose size nobody knows
		whole  bool  // the right bytes come first, and the rest is beyond what was said
	}{
		"chunks, size known":            {answer: forever("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7ffffffffffffff\r\n"), sized: true},
		"until it closes, size known":   {answer: forever("HTTP/1.0 200 OK\r\n\r\n"), sized: true},
		"size not known":                {answer: forever("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7ffffffffffffff\r\n"), limit: imageSize},
		"until it closes, not known":    {answer: forever("HTTP/1.0 200 OK\r\n\r\n"), limit: imageSize},
		"more than it says":             {answer: forever(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", imageSize)), whole: true},
		"more than it says, size known": {answer: forever(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", imageSize)), sized: true, whole: true},
		"in the second half": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				serveImage(&cut{w, half}, r, img, `"v1"`)
				return
			}
			forever(rest)(w, r, n)
		}, sized: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, c.answer)
			r := request(t, s.URL, img)
			r.Limits.Bytes = c.limit
			if c.sized {
				r.Size = imageSize
			}
			var mu sync.Mutex
			extra := int64(-1 << 62)
			look := func() {
				mu.Lock()
				defer mu.Unlock()
				var st unix.Stat_t
				if unix.Stat(r.Part, &st) == nil {
					extra = max(extra, st.Size-imageSize, st.Blocks*512-imageSize)
				}
			}
			looks.Store(&look)
			r.Progress = func(int64, int64) { look() }
			err := Get(t.Context(), r)
			mu.Lock()
			defer mu.Unlock()
			require.GreaterOrEqual(t, extra, int64(-imageSize), "it was never looked at") // what is too much may be refused before any of it is written
			if c.whole {
				require.NoError(t, err)
				requireWhole(t, r, img)
			} else {
				require.Error(t, err)
				require.NoFileExists(t, r.Part)
			}
			most = max(most, extra)
			tried++
		})
	}
	soak.AtLeast(t, "D3", "endless and lying bodies", 7, float64(tried))
	soak.AtMost(t, "D3", "bytes on disk beyond the expected size", 1<<20, float64(most))
}

// Fault D3: a server of a byte a second is given up, its bytes are kept, and the next run goes on behind them.
func TestSlowLorisSoak(t *testing.T) {
	img := newImage(imageSize)
	slow := true
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if slow {
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Content-Length", fmt.Sprint(imageSize))
			drops(img.data, time.Second)(w, r, n)
			return
		}
		serveImage(w, r, img, `"v1"`)
	})
	r := request(t, s.URL, img)
	r.Size, r.Limits.SlowWindow = imageSize, 2*time.Second
	begun := time.Now()
	err := Get(t.Context(), r)
	took := time.Since(begun)
	require.True(t, is[*SlowError](nil)(err), "%v", err)
	st, err := os.Stat(r.Part)
	require.NoError(t, err)
	require.Positive(t, st.Size())
	slow = false
	require.NoError(t, Get(t.Context(), r))
	requireWhole(t, r, img)
	require.Equal(t, fmt.Sprintf("bytes=%d-", st.Size()), s.header(2, "Range"))
	soak.Figure(t, "D3", "until a server of 1 B/s is given up, whose limit is 2 s", 3, took.Seconds(), " s")
}
