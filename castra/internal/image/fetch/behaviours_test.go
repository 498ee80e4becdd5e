package fetch

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// waits are servers that take their time.
func waits(img image) map[string]behaviour {
	short := func(l *Limits) { l.Header = time.Second }
	return map[string]behaviour{
		"silent": {answer: func(_ http.ResponseWriter, r *http.Request, _ int) { until(r) },
			limits: short, fails: stalled, says: "stalled while waiting for the response", asked: 1},
		"silent after the header": {answer: func(w http.ResponseWriter, r *http.Request, _ int) {
			w.Header().Set("Content-Length", "300000")
			w.(http.Flusher).Flush()
			until(r)
		}, limits: func(l *Limits) { l.Stall = 150 * time.Millisecond }, fails: stalled, says: "stalled while waiting for the body", asked: 1},
		"header in drops": {answer: func(w http.ResponseWriter, _ *http.Request, _ int) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			defer conn.Close()
			for _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n"); err == nil; _, err = io.WriteString(conn, "X: y\r\n") {
				time.Sleep(20 * time.Millisecond)
			}
		}, limits: short, fails: stalled, says: "response", asked: 1},
		"body in drops": {answer: drops(img.data, 10*time.Millisecond), limits: func(l *Limits) { l.SlowWindow = 300 * time.Millisecond },
			fails: is[*SlowError](nil), says: "too slow", asked: 1, keeps: true},
		"slow and steady": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("Content-Length", "300000")
			drops(img.data[:30], 5*time.Millisecond)(w, r, n)
			_, _ = w.Write(img.data[30:])
		}, asked: 1},
		"falls silent half way": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w.Header().Set("Content-Length", "300000")
				w.Header().Set("ETag", `"v1"`)
				_, _ = w.Write(img.data[:imageSize/2])
				w.(http.Flusher).Flush()
				until(r)
				return
			}
			serveImage(w, r, img, `"v1"`)
		}, limits: func(l *Limits) { l.Stall = 2 * time.Second }, asked: 2, check: resumedAt(2, imageSize/2, `"v1"`)},
		"reset half way": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w.Header().Set("Content-Length", "300000")
				w.Header().Set("ETag", `"v1"`)
				_, _ = w.Write(img.data[:imageSize/2])
				reset(w)
				return
			}
			serveImage(w, r, img, `"v1"`)
		}, asked: 2},
		"reset each time": {answer: func(w http.ResponseWriter, _ *http.Request, _ int) { reset(w) }, fails: anyError},
	}
}

// oddities are servers that are strange in other ways.
func oddities(img image) map[string]behaviour {
	whole := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", imageSize, img.data)
	return map[string]behaviour{
		"web page by its type, and yet the image": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("Content-Type", "text/html")
			chunked(img.data)(w, r, n)
		}, asked: 1},
		"login page over the same host": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if r.URL.Path != "/login" {
				http.Redirect(w, r, "/login", http.StatusFound)
				return
			}
			page(w, r, n)
		}, fails: mismatch, says: "looks like a web page", asked: 2},
		"502, then fine": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				page(&withStatus{w, http.StatusBadGateway}, r, n)
				return
			}
			serveImage(w, r, img, `"v1"`)
		}, asked: 2},
		"100 Continue, then 200":  {answer: raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + whole), asked: 1},
		"103 Early Hints, no end": {answer: raw(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </"+strings.Repeat("x", 1000)+">\r\n\r\n", 3000)), fails: anyError},
		"101 Switching Protocols": {answer: raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), fails: status(101), asked: 1},
		"length and chunks":       {answer: raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), fails: mismatch, asked: 1},
		"chunk of 2^64 bytes":     {answer: raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"), fails: anyError, says: "broke off", asked: 6},
		"length of 2^63 bytes":    {answer: raw("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n"), fails: anyError, asked: 1},
		"length of 8 EiB, size known": {answer: raw("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n"), sized: true,
			fails: is(func(e *SizeError) bool { return e.Announced }), asked: 1},
		"HTTP/2 preface":         {answer: raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), fails: anyError},
		"HTTP/0.9":               {answer: raw(string(img.data[:1000])), fails: anyError, says: "malformed", asked: 1},
		"status 99":              {answer: raw("HTTP/1.1 099 Odd\r\n\r\n"), fails: anyError},
		"status of two digits":   {answer: raw("HTTP/1.1 20 OK\r\n\r\n"), fails: anyError, says: "malformed", asked: 1},
		"header of a line alone": {answer: raw("HTTP/1.1 200 OK\r\nhello\r\n\r\n"), fails: anyError, says: "malformed", asked: 1},
		"brotli": {answer: func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte("x"))
		}, fails: anyError, says: "Content-Encoding", asked: 1},
		"trailers": {answer: raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: ETag\r\n\r\n" +
			fmt.Sprintf("%x\r\n%s\r\n0\r\nETag: \"x\"\r\n\r\n", imageSize, img.data)), asked: 1},
		"redirect with an endless body": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w.Header().Set("Location", "/real")
				w.WriteHeader(http.StatusFound)
				endless(w, r, n)
				return
			}
			serveImage(w, r, img, `"v1"`)
		}, asked: 2},
		"404 with an endless body": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			w.WriteHeader(http.StatusNotFound)
			endless(w, r, n)
		}, fails: status(404), asked: 1},
		"429 for ever": {answer: answer(http.StatusTooManyRequests), fails: status(429), says: "after 6 tries", asked: 6},
	}
}

// withStatus writes a status before its body.
type withStatus struct {
	http.ResponseWriter
	status int
}

func (w *withStatus) Write(p []byte) (int, error) {
	w.WriteHeader(w.status)
	return w.ResponseWriter.Write(p)
}

// ranges are answers to a request to continue at the half.
func ranges(img image) map[string]behaviour {
	half := imageSize / 2
	right := fmt.Sprintf("bytes %d-%d/%d", half, imageSize-1, imageSize)
	changed := image{data: bytes.Clone(img.data)}
	slices.Reverse(changed.data)
	ranged := func(f func(http.ResponseWriter, *http.Request)) behaviour {
		return behaviour{answer: afterHalf(img, wholeUnlessRange(img, f)), asked: 3}
	}
	wrong := func(contentRange string) behaviour {
		return ranged(func(w http.ResponseWriter, _ *http.Request) { partial(w, contentRange, `"v1"`, img.data[half:]) })
	}
	all := map[string]behaviour{
		"206": {answer: afterHalf(img, func(w http.ResponseWriter, r *http.Request) { serveImage(w, r, img, `"v1"`) }), asked: 2, check: resumedAt(2, half, `"v1"`)},
		"206 of size *": {answer: afterHalf(img, func(w http.ResponseWriter, _ *http.Request) {
			partial(w, fmt.Sprintf("bytes %d-%d/*", half, imageSize-1), `"v1"`, img.data[half:])
		}), asked: 2},
		"range ignored": {answer: afterHalf(img, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(img.data) }), asked: 2},
		"206 in pieces": {answer: afterHalf(img, func(w http.ResponseWriter, r *http.Request) {
			from := rest(r)
			to := min(from+50_000, imageSize)
			partial(w, fmt.Sprintf("bytes %d-%d/%d", from, to-1, imageSize), `"v1"`, img.data[from:to])
		}), asked: 4, sized: true},
		"416":                       ranged(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) }),
		"206 without Content-Range": wrong(""),
		"206 of other bytes":        wrong(fmt.Sprintf("bytes %d-%d/%d", half-1, imageSize-2, imageSize)),
		"206 from the beginning":    wrong(fmt.Sprintf("bytes 0-%d/%d", half-1, imageSize)),
		"206 of another unit":       wrong(strings.Replace(right, "bytes", "lines", 1)),
		"206 of another length":     wrong(fmt.Sprintf("bytes %d-%d/%d", half, imageSize-2, imageSize)),
		"206 of a huge number":      wrong(fmt.Sprintf("bytes %d-99999999999999999999/*", half)),
		"206 in several parts": ranged(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			partial(w, "", `"v1"`, []byte("--x\r\n"))
		}),
		"206 of another file": ranged(func(w http.ResponseWriter, _ *http.Request) { partial(w, right, `"v2"`, changed.data[half:]) }),
		"206 of another file, without ETag": {answer: afterHalf(img, wholeUnlessRange(img, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", right)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(changed.data[half:])
		})), asked: 3},
		"file changed meanwhile": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				serveImage(&cut{w, half}, r, changed, `"v0"`)
				return
			}
			serveImage(w, r, img, `"v1"`)
		}, asked: 2, check: resumedAt(2, half, `"v0"`)},
		"no validator": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("Content-Length", "300000")
			if n == 1 {
				_, _ = (&cut{w, half}).Write(img.data)
			}
			_, _ = w.Write(img.data)
		}, asked: 2, check: func(t *testing.T, s *server) { require.Empty(t, s.header(2, "Range")) }},
		"weak ETag": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w = &cut{w, half}
			}
			serveImage(w, r, img, `W/"v1"`)
		}, asked: 2, check: func(t *testing.T, s *server) { require.Empty(t, s.header(2, "Range")) }},
		"date alone": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w = &cut{w, half}
			}
			http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), &sliceReader{data: img.data})
		}, asked: 2, check: resumedAt(2, half, "Tue, 14 Nov 2023 22:13:20 GMT")},
		"another file for ever": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w = &cut{w, half}
			}
			serveImage(w, r, changed, `"v1"`)
		}, fails: mismatch, asked: 3},
		"gzip on resuming": {answer: afterHalf(img, func(w http.ResponseWriter, r *http.Request) { zipped(img)(w, r, 2) }),
			fails: anyError, says: "Content-Encoding", asked: 2, keeps: true},
		"404 on resuming":      {answer: afterHalf(img, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }), fails: status(404), asked: 2, keeps: true},
		"web page on resuming": {answer: afterHalf(img, func(w http.ResponseWriter, r *http.Request) { page(w, r, 2) }), sized: true, fails: wrongSize, says: "web page", asked: 2, keeps: true},
	}
	return all
}

// moves are redirects.
func moves(img image) map[string]behaviour {
	to := func(location string) behaviour {
		return behaviour{answer: func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusMovedPermanently)
		}, fails: redirect, asked: 1}
	}
	hops := func(count int) behaviour {
		return behaviour{asked: count + 1, answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n > count {
				serveImage(w, r, img, `"v1"`)
				return
			}
			code := []int{301, 302, 303, 307, 308}[n%5]
			http.Redirect(w, r, fmt.Sprintf("/hop/%d", n), code)
		}}
	}
	all := map[string]behaviour{
		"10 redirects": hops(10),
		"11 redirects": hops(11),
		"redirect loop": {answer: func(w http.ResponseWriter, r *http.Request, _ int) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
			fails: redirect, says: "10 hops", asked: 11},
		"redirect to http":    to("http://127.0.0.1:1/"),
		"redirect to file":    to("file:///etc/passwd"),
		"redirect to ftp":     to("ftp://127.0.0.1/"),
		"redirect to no URL":  to("https://[::1/"),
		"redirect to nothing": {answer: answer(302), fails: status(302), asked: 1},
		"redirect to no host": to("https:///x"),
		"redirect to what is not": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
				return
			}
			http.NotFound(w, r)
		}, fails: status(404), says: "/elsewhere", asked: 2},
		"redirect keeps the range": {answer: func(w http.ResponseWriter, r *http.Request, n int) {
			switch {
			case r.URL.Path != "/real":
				http.Redirect(w, r, "/real", http.StatusFound)
			case n == 2:
				serveImage(&cut{w, imageSize / 2}, r, img, `"v1"`)
			default:
				serveImage(w, r, img, `"v1"`)
			}
		}, asked: 4, check: resumedAt(4, imageSize/2, `"v1"`)},
	}
	b := all["11 redirects"]
	b.fails, b.asked = redirect, 11
	all["11 redirects"] = b
	return all
}
