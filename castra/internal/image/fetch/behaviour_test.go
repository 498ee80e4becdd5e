package fetch

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/digest"
	"castra.example/castra/castra/internal/soak"
)

const imageSize = 300_000

// behaviour is one way in which a server may answer, and what is to come of
// it.
type behaviour struct {
	answer func(w http.ResponseWriter, r *http.Request, n int)
	sized  bool             // the request says the size
	limits func(*Limits)    // changes to quick()
	fails  func(error) bool // nil: it succeeds
	says   string           // in the error
	asked  int              // requests; 0: not looked at
	keeps  bool             // the part is kept
	check  func(*testing.T, *server)
}

func is[E error](test func(E) bool) func(error) bool {
	return func(err error) bool {
		var e E
		return errors.As(err, &e) && (test == nil || test(e))
	}
}

func status(code int) func(error) bool {
	return is(func(e *StatusError) bool { return e.Status == code })
}

var (
	mismatch  = is[*digest.MismatchError](nil)
	wrongSize = is[*SizeError](nil)
	stalled   = is[*StalledError](nil)
	redirect  = is[*RedirectError](nil)
	anyError  = is[*Error](nil)
)

func answer(code int) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(code) }
}

func page(w http.ResponseWriter, _ *http.Request, _ int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!doctype html><title>Welcome to the hotel</title>")
}

// afterHalf breaks off the first answer half way, and gives the others to
// then.
func afterHalf(img image, then func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 1 {
			serveImage(&cut{w, len(img.data) / 2}, r, img, `"v1"`)
			return
		}
		then(w, r)
	}
}

// rest is the offset that a request asks for.
func rest(r *http.Request) int {
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-"))
	if err != nil {
		return -1
	}
	return n
}

// wholeUnlessRange answers a request for a range with answer, and others as a
// good server does.
func wholeUnlessRange(img image, ranged func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			serveImage(w, r, img, `"v1"`)
			return
		}
		ranged(w, r)
	}
}

// partial answers with 206 and the headers and body given.
func partial(w http.ResponseWriter, contentRange, tag string, body []byte) {
	w.Header().Set("ETag", tag)
	if contentRange != "" {
		w.Header().Set("Content-Range", contentRange)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(body)
}

// until blocks until the client is gone.
func until(r *http.Request) { <-r.Context().Done() }

// raw writes text to the connection and closes it.
func raw(text string) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

func behaviours(img image) map[string]behaviour {
	other := newImage(len(img.data) - 1)
	all := map[string]behaviour{
		"200": {answer: content(img), asked: 1},
		"404": {answer: answer(404), fails: status(404), says: "404 Not Found", asked: 1},
		"403": {answer: answer(403), fails: status(403), asked: 1},
		"410": {answer: answer(410), fails: status(410), asked: 1},
		"204": {answer: answer(204), fails: status(204), asked: 1},
		"206 that nobody asked for": {answer: func(w http.ResponseWriter, _ *http.Request, _ int) {
			partial(w, "bytes 0-9/10", `"v1"`, img.data[:10])
		}, fails: status(206), asked: 1},
		"416 that nobody asked for": {answer: answer(416), fails: status(416), asked: 1},
		"304":                       {answer: answer(304), fails: status(304), asked: 1},
		"501":                       {answer: answer(501), fails: status(501), asked: 1},
		"500 for ever":              {answer: answer(500), fails: status(500), says: "after 6 tries", asked: 6},
		"503 for a while": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n <= 5 {
				w.Header().Set("Retry-After", "86400")
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			serveImage(w, r, img, `"v1"`)
		}, asked: 6},
		"429 until a date": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w.Header().Set("Retry-After", time.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat))
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			serveImage(w, r, img, `"v1"`)
		}, asked: 2},
		"web page":                  {answer: page, fails: mismatch, says: "looks like a web page", asked: 1},
		"web page, size known":      {answer: page, sized: true, fails: wrongSize, says: "looks like a web page", asked: 1},
		"empty":                     {answer: answer(200), fails: mismatch, asked: 1},
		"empty, size known":         {answer: answer(200), sized: true, fails: wrongSize, asked: 1},
		"another image":             {answer: content(other), fails: mismatch, says: "wrong contents", asked: 1},
		"another image, size known": {answer: content(other), sized: true, fails: is(func(e *SizeError) bool { return e.Announced && e.Got == imageSize-1 }), asked: 1},
		"longer image, size known":  {answer: content(newImage(len(img.data) + 1)), sized: true, fails: wrongSize, asked: 1},
		"gzip":                      {answer: zipped(img), fails: anyError, says: "Content-Encoding", asked: 1},
		"garbage":                   {answer: raw("220 ftp ready\r\n"), fails: anyError, says: "malformed", asked: 1},
		"huge header":               {answer: raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n"), fails: anyError, says: "header", asked: 1},
		"closed without an answer":  {answer: raw(""), fails: anyError, says: "after 6 tries"},
		"closed after the header":   {answer: raw("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"), fails: anyError, says: "broke off", asked: 6},
		"length longer than the body": {answer: raw("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + string(img.data[:1000])),
			fails: anyError, says: "broke off", asked: 7, keeps: true},
		"length shorter than the body": {answer: raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + string(img.data)), fails: mismatch, asked: 1},
		"two lengths":                  {answer: raw("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nContent-Length: 5\r\n\r\n"), fails: anyError, asked: 1},
		"length below zero":            {answer: raw("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), fails: anyError, asked: 1},
		"no length, until it closes":   {answer: raw("HTTP/1.0 200 OK\r\n\r\n" + string(img.data)), asked: 1},
		"chunks":                       {answer: chunked(img.data), asked: 1},
		"chunks, size known":           {answer: chunked(img.data), sized: true, asked: 1},
		"chunks, too few":              {answer: chunked(img.data[:imageSize-1]), sized: true, fails: wrongSize, asked: 1},
		"chunks, one byte more":        {answer: chunked(append(img.data[:imageSize:imageSize], 0)), sized: true, fails: is(func(e *SizeError) bool { return e.More }), asked: 1},
		"chunks, broken":               {answer: raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), fails: anyError, says: "broke off", asked: 6},
		"endless, size known":          {answer: endless, sized: true, fails: is(func(e *SizeError) bool { return e.More && e.Got == imageSize }), asked: 1},
		"endless, size not known":      {answer: endless, limits: func(l *Limits) { l.Bytes = 1 << 20 }, fails: is(func(e *SizeError) bool { return e.Want == 1<<20 }), asked: 1},
	}
	for _, more := range []map[string]behaviour{waits(img), ranges(img), moves(img), oddities(img)} {
		for name, b := range more {
			all[name] = b
		}
	}
	return all
}

func resumedAt(n, offset int, validator string) func(*testing.T, *server) {
	return func(t *testing.T, s *server) {
		require.Equal(t, fmt.Sprintf("bytes=%d-", offset), s.header(n, "Range"))
		require.Equal(t, validator, s.header(n, "If-Range"))
		require.Equal(t, "identity", s.header(n, "Accept-Encoding"))
	}
}

func zipped(img image) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(img.data)
		_ = z.Close()
	}
}

func chunked(data []byte) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) {
		for at := 0; at < len(data); at += 10_000 {
			_, _ = w.Write(data[at:min(at+10_000, len(data))])
			w.(http.Flusher).Flush()
		}
	}
}

func endless(w http.ResponseWriter, _ *http.Request, _ int) {
	for buf, err := make([]byte, 1<<16), error(nil); err == nil; _, err = w.Write(buf) {
	}
}

func drops(data []byte, every time.Duration) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) {
		for i := range data {
			if _, err := w.Write(data[i : i+1]); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(every)
		}
	}
}

// TestServersSoak puts Get before every kind of server, straight and through a
// proxy: fault D4.
func TestServersSoak(t *testing.T) {
	img := newImage(imageSize)
	p := startProxy(t, nil)
	all := behaviours(img)
	t.Cleanup(func() { // when the parallel ones are done
		if !t.Failed() {
			soak.AtLeast(t, "D4", "behaviours of servers, each with its right outcome", 24, float64(len(all)))
		}
	})
	for name, b := range all {
		for _, through := range []string{"", " through a proxy"} {
			t.Run(name+through, func(t *testing.T) {
				t.Parallel()
				s := serve(t, b.answer)
				r := request(t, s.URL+"/disk.qcow2", img)
				if through != "" {
					r.Client.Transport.(*http.Transport).Proxy = http.ProxyURL(p.url)
				}
				if b.sized {
					r.Size = imageSize
				}
				if b.limits != nil {
					b.limits(&r.Limits)
				}
				var most int64
				r.Progress = func(done, _ int64) { most = max(most, done) }
				b.require(t, Get(t.Context(), r), r, s, img)
				require.LessOrEqual(t, most, max(r.Limits.Bytes, imageSize)+1, "no more is taken than may be")
			})
		}
	}
}

func (b behaviour) require(t *testing.T, err error, r Request, s *server, img image) {
	if b.fails == nil {
		require.NoError(t, err)
		requireWhole(t, r, img)
	} else {
		require.Error(t, err)
		require.True(t, b.fails(err), "%T: %v", err, err)
		require.ErrorContains(t, err, b.says)
		require.ErrorContains(t, err, s.URL)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.NotEmpty(t, e.Hint())
		left := []string{}
		if b.keeps {
			left = []string{"download.part", "download.part.json"}
		}
		require.Equal(t, left, names(t, filepath.Dir(r.Part)))
	}
	if b.asked != 0 {
		require.Equal(t, b.asked, s.asked())
	}
	if b.check != nil {
		b.check(t, s)
	}
}
