package fetch

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Error is a download that failed on the way: network, proxy, server, or what
// the server sent. What fails on this computer's disk is a *DiskError or a
// *ForeignError, and an ended context is neither.
type Error struct {
	URL   string // as asked for, redacted
	Final string // after redirects, redacted
	Tries int    // requests or chains of requests made
	Err   error
}

func (e *Error) Error() string {
	s := "download of " + e.URL
	if e.Final != e.URL && e.Final != "" {
		s += " (redirected to " + e.Final + ")"
	}
	s += ": " + e.Err.Error()
	if e.Tries > 1 {
		s += fmt.Sprintf(" (after %d tries)", e.Tries)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Hint says what to do next: the cause's own advice where it has any.
func (e *Error) Hint() string {
	var inner interface{ Hint() string }
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(e.Err, &inner):
		return inner.Hint()
	case errors.As(e.Err, &certificate):
		return "check this computer's clock; where a proxy opens TLS connections, name its CA certificate in SSL_CERT_FILE"
	}
	return "check the network and the proxy (HTTPS_PROXY, NO_PROXY), then run it again: what has come so far is kept"
}

// StatusError says: the server answered with another status than the
// request is served by.
type StatusError struct {
	URL        string // where the last answer came from, redacted
	Status     int
	RetryAfter time.Duration // as the server asks, unbounded; 0: it does not say
}

func (e *StatusError) Error() string {
	if text := http.StatusText(e.Status); text != "" {
		return fmt.Sprintf("the server answered %d %s", e.Status, text)
	}
	return fmt.Sprintf("the server answered with status %d", e.Status)
}

// Hint says what to do next.
func (e *StatusError) Hint() string {
	switch {
	case e.Status == http.StatusNotFound || e.Status == http.StatusGone:
		return "the image is not there any more: check the URL; image servers remove old releases"
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return "the server lets not everybody in: check the URL, or fetch the file by hand and name its path"
	case e.temporary():
		return "the server is in trouble: run it again later, or take another mirror"
	}
	return "check the URL"
}

// temporary tells that the same request may be answered better soon.
func (e *StatusError) temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return e.Status >= 500 && e.Status <= 599
}

// StalledError says: nothing came for as long as may be waited.
type StalledError struct {
	Doing string // what was waited for
	Limit time.Duration
}

func (e *StalledError) Error() string {
	return fmt.Sprintf("stalled while %s: nothing came for %v", e.Doing, e.Limit)
}

// SlowError says: bytes come, and too few to wait for the rest.
type SlowError struct {
	Bytes  int64 // that came in Window
	Window time.Duration
}

func (e *SlowError) Error() string {
	return fmt.Sprintf("too slow: %d bytes in %v", e.Bytes, e.Window)
}

// RedirectError says: the server sent the request on, and it is not followed.
type RedirectError struct {
	From, To string // redacted; To is empty where it is unreadable
	Hops     int    // followed so far
	Reason   string
}

func (e *RedirectError) Error() string {
	if e.To == "" {
		return fmt.Sprintf("redirect from %s: %s", e.From, e.Reason)
	}
	return fmt.Sprintf("redirect from %s to %s: %s", e.From, e.To, e.Reason)
}

// Hint says what to do next.
func (e *RedirectError) Hint() string {
	return "open the URL in a browser to see where it leads; a network that wants a login sends every request on to it"
}

// SizeError says: the file is not as long as expected.
type SizeError struct {
	Got, Want int64 // bytes
	Announced bool  // Got is what the server said beforehand, and no byte was taken
	More      bool  // Got is where reading stopped; there was more
}

func (e *SizeError) Error() string {
	switch {
	case e.More:
		return fmt.Sprintf("wrong size: more than the expected %d bytes came", e.Want)
	case e.Announced:
		return fmt.Sprintf("wrong size: the server has %d bytes, expected %d", e.Got, e.Want)
	}
	return fmt.Sprintf("wrong size: %d bytes came, expected %d", e.Got, e.Want)
}

// Hint says what to do next.
func (e *SizeError) Hint() string {
	return "the file was changed at its source, or the URL is of another one: check the URL and the digest"
}

// PageError says: what came is no image and calls itself a web page.
type PageError struct{ Err error }

func (e *PageError) Error() string {
	return "looks like a web page (captive portal or error page): " + e.Err.Error()
}

func (e *PageError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *PageError) Hint() string {
	return "open the URL in a browser: log in to the network if it asks for that, or correct the URL"
}

// DiskError says: the partial file cannot be written.
type DiskError struct {
	Path string
	Have int64 // bytes that are there and kept
	Need int64 // bytes still to come; -1: not known
	Err  error
}

func (e *DiskError) Error() string {
	need := "an unknown number of bytes more"
	if e.Need >= 0 {
		need = fmt.Sprintf("%d bytes more", e.Need)
	}
	return fmt.Sprintf("write %s: %v (%d bytes are there, it needs %s)", e.Path, e.Err, e.Have, need)
}

func (e *DiskError) Unwrap() error { return e.Err }

// ForeignError says: what lies in the partial file's place was not put there
// by this user's Castra, and is left alone.
type ForeignError struct{ Path, Reason string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("partial download %s: %s", e.Path, e.Reason)
}

// Hint says what to do next.
func (e *ForeignError) Hint() string { return "move it away, then run it again" }
