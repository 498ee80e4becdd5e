package fetch

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// errStartOver says: the server cannot or will not continue what is there.
var errStartOver = errors.New("the server does not continue the partial download")

// accept reads the head of a response to a request from byte d.part.n on. On
// nil the part is set to take the body.
func (d *download) accept(resp *http.Response) error {
	d.page = false
	if coding := resp.Header.Get("Content-Encoding"); resp.StatusCode/100 == 2 && coding != "" && !strings.EqualFold(coding, "identity") {
		return fmt.Errorf("the server sends it encoded (Content-Encoding %.40q), though asked for it as it is", coding)
	}
	asked := d.part.n > 0
	switch {
	case resp.StatusCode == http.StatusOK:
		return d.acceptWhole(resp)
	case resp.StatusCode == http.StatusPartialContent && asked:
		return d.acceptRest(resp)
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && asked:
		return errStartOver
	}
	return &StatusError{URL: d.final, Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
}

func (d *download) acceptWhole(resp *http.Response) error {
	d.page = isPage(resp.Header)
	size, announced := d.req.Size, resp.ContentLength
	if size > 0 && announced >= 0 && announced != size {
		return d.pageOr(&SizeError{Got: announced, Want: size, Announced: true})
	}
	if size == 0 {
		size = max(announced, 0)
	}
	if err := d.part.empty(); err != nil {
		return err
	}
	d.mixed = false
	d.definite = resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0
	d.part.need = size
	d.validator = validator(resp.Header)
	if err := d.save(); err != nil {
		return err
	}
	if d.req.Size > 0 {
		return d.part.reserve(size)
	}
	return nil
}

func (d *download) acceptRest(resp *http.Response) error {
	r, ok := parseContentRange(resp.Header.Get("Content-Range"))
	size := d.req.Size
	switch {
	case !ok || r.first != d.part.n,
		resp.ContentLength >= 0 && resp.ContentLength != r.last-r.first+1,
		size > 0 && r.total >= 0 && r.total != size,
		size > 0 && r.last >= size,
		changed(resp.Header, d.validator):
		return errStartOver
	}
	if size == 0 {
		size = max(r.total, 0)
	}
	d.part.need = size
	d.mixed, d.definite = true, false
	return nil
}

// validator is what If-Range may name (RFC 9110, 13.1.5): a strong ETag, else
// the time of the last change, else nothing.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); strong(tag) {
		return tag
	}
	return h.Get("Last-Modified")
}

func strong(tag string) bool { return len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"' }

// changed tells that a response is of another file than the validator, since
// a server may continue a download without heeding If-Range.
func changed(h http.Header, validator string) bool {
	now := h.Get("Last-Modified")
	if strong(validator) {
		now = h.Get("ETag")
	}
	return now != "" && now != validator
}

// contentRange is "bytes first-last/total"; total is -1 where it is "*".
type contentRange struct{ first, last, total int64 }

func parseContentRange(s string) (r contentRange, ok bool) {
	unit, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	span, total, found := strings.Cut(rest, "/")
	first, last, dash := strings.Cut(span, "-")
	if !strings.EqualFold(unit, "bytes") || !found || !dash {
		return r, false
	}
	numbers := []struct {
		text string
		to   *int64
	}{{first, &r.first}, {last, &r.last}, {total, &r.total}}
	for _, n := range numbers {
		v, err := strconv.ParseUint(n.text, 10, 63)
		if err != nil && (n.to != &r.total || n.text != "*") {
			return r, false
		}
		*n.to = int64(v)
	}
	if total == "*" {
		r.total = -1
	}
	return r, r.first <= r.last && (r.total < 0 || r.last < r.total)
}

// isPage tells that a body calls itself a web page.
func isPage(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (kind == "text/html" || kind == "application/xhtml+xml")
}

// pageOr is err, called a web page where the body said that it is one. What has the right digest is no error, whatever its
// server calls it.
func (d *download) pageOr(err error) error {
	if err != nil && d.page {
		return &PageError{err}
	}
	return err
}

// retryAfter reads a Retry-After header: seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
