package fetch

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/digest"
)

// leave puts there what an earlier run left: bytes and their record.
func leave(t *testing.T, r Request, data []byte, rec record) {
	require.NoError(t, os.WriteFile(r.Part, data, 0o600))
	text, err := json.Marshal(rec)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(r.Part+".json", text, 0o600))
}

func TestResume(t *testing.T) {
	img := newImage(imageSize)
	half := imageSize / 2
	flipped := append([]byte{img.data[0] ^ 1}, img.data[1:]...)
	for name, c := range map[string]struct {
		left   []byte
		change func(*record)
		sized  bool
		ranges []string // of the requests made
	}{
		"half":                       {left: img.data[:half], ranges: []string{"bytes=150000-"}},
		"half, size known":           {left: img.data[:half], sized: true, ranges: []string{"bytes=150000-"}},
		"one byte":                   {left: img.data[:1], ranges: []string{"bytes=1-"}},
		"all but one":                {left: img.data[:imageSize-1], ranges: []string{"bytes=299999-"}},
		"more than was recorded":     {left: img.data[:half], change: func(r *record) { r.Bytes = 10 }, ranges: []string{"bytes=150000-"}},
		"all":                        {left: img.data, ranges: []string{}},
		"all, size known":            {left: img.data, sized: true, ranges: []string{}},
		"all, record lost":           {left: img.data, sized: true, change: func(r *record) { *r = record{} }, ranges: []string{}},
		"all, another URL":           {left: img.data, change: func(r *record) { r.URL = "https://elsewhere/" }, ranges: []string{}},
		"less than was recorded":     {left: img.data[:half], change: func(r *record) { r.Bytes = imageSize }, ranges: []string{""}},
		"another URL":                {left: img.data[:half], change: func(r *record) { r.URL += "x" }, ranges: []string{""}},
		"another digest":             {left: img.data[:half], change: func(r *record) { r.Digest = digestOf(nil).String() }, ranges: []string{""}},
		"digest in upper case":       {left: img.data[:half], change: func(r *record) { r.Digest = strings.ToUpper(r.Digest) }, ranges: []string{"bytes=150000-"}},
		"no validator":               {left: img.data[:half], change: func(r *record) { r.Validator = "" }, ranges: []string{""}},
		"validator of two lines":     {left: img.data[:half], change: func(r *record) { r.Validator = "\"a\"\r\nX: y" }, ranges: []string{""}},
		"record lost":                {left: img.data[:half], change: func(r *record) { *r = record{} }, ranges: []string{""}},
		"too long":                   {left: append(img.data[:imageSize:imageSize], 1), sized: true, ranges: []string{""}},
		"too long, size not known":   {left: append(img.data[:imageSize:imageSize], 1), ranges: []string{"bytes=300001-", ""}},
		"damaged":                    {left: flipped[:half], ranges: []string{"bytes=150000-", ""}},
		"damaged and whole":          {left: flipped, sized: true, ranges: []string{""}},
		"damaged, size not known":    {left: flipped, ranges: []string{"bytes=300000-", ""}},
		"of a file that has changed": {left: flipped[:half], change: func(r *record) { r.Validator = `"v0"` }, ranges: []string{"bytes=150000-"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, content(img))
			r := request(t, s.URL+"/disk", img)
			if c.sized {
				r.Size = imageSize
			}
			rec := record{URL: r.URL, Digest: img.digest.String(), Validator: `"v1"`, Bytes: int64(min(len(c.left), imageSize))}
			if c.change != nil {
				c.change(&rec)
			}
			leave(t, r, c.left, rec)
			require.NoError(t, Get(t.Context(), r))
			requireWhole(t, r, img)
			got := []string{}
			for n := range s.asked() {
				got = append(got, s.header(n+1, "Range"))
			}
			require.Equal(t, c.ranges, got)
		})
	}
}

func TestDamagedRecordIsNone(t *testing.T) {
	img := newImage(1000)
	s := serve(t, content(img))
	for _, text := range []string{"", "{", "null", "[]", `{"bytes":"x"}`, `{"bytes":-5}`, "\x00\x00", strings.Repeat("{", maxRecord*2)} {
		r := request(t, s.URL, img)
		require.NoError(t, os.WriteFile(r.Part, img.data[:500], 0o600))
		require.NoError(t, os.WriteFile(r.Part+".json", []byte(text), 0o600))
		require.NoError(t, Get(t.Context(), r))
		requireWhole(t, r, img)
		require.Empty(t, s.header(s.asked(), "Range"))
	}
}

// A mixture that is wrong is fetched again once, and not more often.
func TestStartsOverExactlyOnce(t *testing.T) {
	img := newImage(imageSize)
	s := serve(t, content(newImage(imageSize-1)))
	r := request(t, s.URL, img)
	leave(t, r, img.data[:1000], record{URL: r.URL, Digest: img.digest.String(), Validator: `"v1"`, Bytes: 1000})
	err := Get(t.Context(), r)
	var mismatch *digest.MismatchError
	require.ErrorAs(t, err, &mismatch)
	require.Equal(t, img.digest, mismatch.Want)
	require.Equal(t, newImage(imageSize-1).digest, mismatch.Got)
	require.Equal(t, 2, s.asked())
	require.Empty(t, names(t, filepath.Dir(r.Part)))
}

// At each of 50 places the connection breaks, and the same call or the next
// one goes on.
func TestCutAnywhere(t *testing.T) {
	img := newImage(imageSize)
	const cuts = 50
	for name, retries := range map[string]int{"in one call": 5, "in a call each": -1} {
		t.Run(name, func(t *testing.T) {
			var at [cuts]int // bytes after which the nth answer breaks
			s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if n <= cuts {
					w = &cut{w, at[n-1]}
				}
				serveImage(w, r, img, `"v1"`)
			})
			for i := range at {
				at[i] = 1 + (i*7919)%(2*imageSize/cuts-1) // on average a 50th of it
			}
			r := request(t, s.URL, img)
			r.Size, r.Limits.Retries, r.Limits.SlowRate = imageSize, retries, 1
			calls := 0
			for err := error(&cutError{}); err != nil && calls <= cuts; calls++ {
				err = Get(t.Context(), r)
				if err != nil {
					require.True(t, retries < 0, "%v", err)
					st, statErr := os.Stat(r.Part)
					require.NoError(t, statErr)
					data, readErr := os.ReadFile(r.Part)
					require.NoError(t, readErr)
					require.True(t, string(img.data[:st.Size()]) == string(data))
				}
			}
			requireWhole(t, r, img)
			require.Greater(t, s.asked(), 40)
			for n := 2; n <= s.asked(); n++ {
				require.NotEmpty(t, s.header(n, "Range"), "no byte is fetched twice")
			}
		})
	}
}

// Each single place of a small file.
func TestCutAtEveryByte(t *testing.T) {
	img := newImage(60)
	for _, sized := range []bool{false, true} {
		for at := range len(img.data) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if n == 1 {
					w = &cut{w, at}
				}
				serveImage(w, r, img, `"v1"`)
			})
			r := request(t, s.URL, img)
			if sized {
				r.Size = int64(len(img.data))
			}
			require.NoError(t, Get(t.Context(), r))
			requireWhole(t, r, img)
			s.Close()
			r.Client.CloseIdleConnections()
		}
	}
}

// Progress resets the count of failures; without it, the tries end.
func TestRetriesAreCounted(t *testing.T) {
	img := newImage(imageSize)
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if n%3 != 0 { // two failures before each step
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		serveImage(&cut{w, imageSize/10 + 1}, r, img, `"v1"`)
	})
	r := request(t, s.URL, img)
	r.Limits.Retries, r.Limits.SlowRate = 2, 1
	require.NoError(t, Get(t.Context(), r), "27 failures, never three without progress")
	requireWhole(t, r, img)

	r = request(t, s.URL, img)
	r.Limits.Retries = 1
	err := Get(t.Context(), r)
	require.True(t, status(502)(err), "%v", err)
}

// A server that cannot resume and always breaks at the same place is not
// asked for ever, although each answer brings bytes.
func TestNoEndlessTries(t *testing.T) {
	img := newImage(imageSize)
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		r.Header.Del("Range")
		serveImage(&cut{w, imageSize / 2}, r, img, `"v1"`)
	})
	r := request(t, s.URL, img)
	err := Get(t.Context(), r)
	require.ErrorContains(t, err, "broke off")
	require.Equal(t, 7, s.asked(), "the first brought more than there was, six did not")
}

// A cancelled context ends every wait, and what came is kept.
func TestCancel(t *testing.T) {
	img := newImage(imageSize)
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request, n int)
		there  int64
	}{
		"before the header": {func(_ http.ResponseWriter, r *http.Request, _ int) { until(r) }, 0},
		"in the body": {func(w http.ResponseWriter, r *http.Request, _ int) {
			w.Header().Set("Content-Length", fmt.Sprint(imageSize))
			w.Header().Set("ETag", `"v1"`)
			_, _ = w.Write(img.data[:1000])
			w.(http.Flusher).Flush()
			until(r)
		}, 1},
		"in drops": {func(w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("ETag", `"v1"`)
			drops(img.data, time.Millisecond)(w, r, n)
		}, 1},
		"in a pause": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 100)
			s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
				asked <- struct{}{}
				c.answer(w, r, n)
			})
			r := request(t, s.URL, img)
			r.Limits.RetryAfter = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error, 1)
			came := make(chan struct{}, 1)
			r.Progress = func(done, _ int64) {
				if done >= c.there {
					select {
					case came <- struct{}{}:
					default:
					}
				}
			}
			go func() { result <- Get(ctx, r) }()
			<-asked
			if c.there > 0 {
				<-came
			}
			time.Sleep(20 * time.Millisecond)
			cancel()
			select {
			case err := <-result:
				require.ErrorIs(t, err, context.Canceled)
			case <-time.After(20 * time.Second):
				t.Fatal("Get does not heed its context")
			}
			if c.there == 0 {
				require.Empty(t, names(t, filepath.Dir(r.Part)))
				return
			}
			data, err := os.ReadFile(r.Part)
			require.NoError(t, err)
			require.GreaterOrEqual(t, int64(len(data)), c.there)
			require.True(t, strings.HasPrefix(string(img.data), string(data)))
			rec, err := readRecord(r.Part)
			require.NoError(t, err)
			require.Equal(t, record{URL: r.URL, Digest: img.digest.String(), Validator: `"v1"`, Bytes: int64(len(data))}, rec)
		})
	}
}

func TestCancelWhileHashingKeepsThePart(t *testing.T) {
	img := newImage(8 << 20)
	r := request(t, "https://127.0.0.1:1/", img)
	rec := record{URL: r.URL, Digest: img.digest.String(), Validator: `"v1"`, Bytes: 7 << 20}
	leave(t, r, img.data[:7<<20], rec)
	ctx, cancel := context.WithCancel(t.Context())
	r.Progress = func(int64, int64) { cancel() }
	require.ErrorIs(t, Get(ctx, r), context.Canceled)
	st, err := os.Stat(r.Part)
	require.NoError(t, err)
	require.EqualValues(t, 7<<20, st.Size())
	kept, err := readRecord(r.Part)
	require.NoError(t, err)
	require.Equal(t, rec, kept)
}
