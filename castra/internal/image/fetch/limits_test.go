package fetch

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDefaults(t *testing.T) {
	l := Limits{}.withDefaults()
	require.Equal(t, Limits{
		Connect: 30 * time.Second, TLS: 15 * time.Second, Header: 30 * time.Second, Stall: 30 * time.Second,
		SlowRate: 1024, SlowWindow: 5 * time.Minute, Redirects: 10, Bytes: 64 << 30,
		Retries: 5, Backoff: time.Second, MaxBackoff: 30 * time.Second, RetryAfter: time.Minute,
	}, l)
	own := Limits{1, 2, 3, 4, 5, 6, 7, 8, -1, 10, 11, 12}
	require.Equal(t, own, own.withDefaults())
	require.Equal(t, time.Duration(0), DefaultClient().Timeout, "there is no limit on the whole")
}

func TestPause(t *testing.T) {
	l := Limits{}.withDefaults()
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 5: 16 * time.Second, 6: 30 * time.Second, 60: 30 * time.Second} {
		require.Equal(t, want, l.pause(failures, io.EOF))
	}
	asks := func(d time.Duration) error { return fmt.Errorf("x: %w", &StatusError{Status: 429, RetryAfter: d}) }
	require.Equal(t, 7*time.Second, l.pause(1, asks(7*time.Second)))
	require.Equal(t, time.Minute, l.pause(1, asks(24*time.Hour)))
	require.Equal(t, 8*time.Second, l.pause(4, asks(time.Second)))
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-5": 0, "soon": 0, "1e9": 0, "99999999999999999999": 0,
		"Sat, 01 Aug 2026 12:00:30 GMT": 30 * time.Second, "Sat, 01 Aug 2026 11:00:00 GMT": 0,
	} {
		require.Equal(t, want, retryAfter(text, now), text)
	}
}

func TestRate(t *testing.T) {
	feed := func(perSecond int64, seconds int, r *rate) (err error) {
		for i := 0; i < seconds && err == nil; i++ {
			err = r.add(perSecond, time.Second)
		}
		return err
	}
	l := Limits{SlowRate: 1024, SlowWindow: 5 * time.Minute}
	require.NoError(t, feed(1, 90, newRate(l)), "a byte a second lives for 90 s")
	require.NoError(t, feed(1, 299, newRate(l)))
	var slow *SlowError
	require.ErrorAs(t, feed(1, 300, newRate(l)), &slow)
	require.Equal(t, SlowError{300, 5 * time.Minute}, *slow)
	require.NoError(t, feed(1024, 10_000, newRate(l)))
	require.ErrorAs(t, feed(1023, 300, newRate(l)), &slow)

	r := newRate(l)
	require.NoError(t, feed(1<<20, 1000, r))
	require.NoError(t, feed(0, 270, r), "what came before still counts")
	require.Error(t, feed(0, 61, r))

	require.Error(t, newRate(l).add(0, time.Hour), "one long wait")
	require.NoError(t, newRate(l).add(1<<30, time.Minute))
}

func TestTransient(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for name, c := range map[string]struct {
		err                  error
		progressed, received bool
		want                 bool
	}{
		"reset":                    {err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}, want: true},
		"cut":                      {err: &cutError{errors.New("x")}, want: true},
		"closed":                   {err: io.EOF, want: true},
		"500":                      {err: &StatusError{Status: 500}, want: true},
		"408":                      {err: &StatusError{Status: 408}, want: true},
		"404":                      {err: &StatusError{Status: 404}},
		"505":                      {err: &StatusError{Status: 505}},
		"600":                      {err: &StatusError{Status: 600}},
		"stalled":                  {err: &StalledError{}, received: true},
		"stalled after bytes":      {err: &StalledError{}, progressed: true, want: true},
		"slow":                     {err: &SlowError{}, progressed: true, received: true},
		"never there":              {err: dial},
		"gone":                     {err: dial, received: true, want: true},
		"no such host":             {err: &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}},
		"proxy never there":        {err: &net.OpError{Op: "proxyconnect", Err: dial}},
		"disk":                     {err: &DiskError{Err: syscall.ENOSPC}, progressed: true, received: true},
		"something else":           {err: errors.New("x"), progressed: true, received: true},
		"redirect":                 {err: &RedirectError{}, progressed: true, received: true},
		"reset within other words": {err: scrub(fmt.Errorf("//a@b: %w", syscall.ECONNRESET)), want: true},
	} {
		require.Equal(t, c.want, transient(c.err, c.progressed, c.received), name)
	}
}

func TestContentRange(t *testing.T) {
	for text, want := range map[string]contentRange{
		"bytes 5-9/10":  {5, 9, 10},
		"Bytes 0-0/1":   {0, 0, 1},
		" bytes 5-9/* ": {5, 9, -1},
	} {
		r, ok := parseContentRange(text)
		require.True(t, ok, text)
		require.Equal(t, want, r)
	}
	for _, text := range []string{"", "bytes", "bytes */10", "bytes 5-9", "bytes 5-/10", "bytes -9/10", "bytes 9-5/10", "bytes 5-10/10", "5-9/10",
		"bytes 5-9/x", "bytes 5-9/-1", "bytes +5-9/10", "bytes *-9/10", "bytes=5-9/10", "bytes 0-99999999999999999999/*", "bytes 0-1/2/3"} {
		_, ok := parseContentRange(text)
		require.False(t, ok, text)
	}
}

func TestValidator(t *testing.T) {
	const date = "Tue, 14 Nov 2023 22:13:20 GMT"
	header := func(tag string) http.Header { return http.Header{"Etag": {tag}, "Last-Modified": {date}} }
	require.Equal(t, `"a"`, validator(header(`"a"`)))
	require.Equal(t, date, validator(header(`W/"a"`)))
	require.Equal(t, date, validator(header(`a`)))
	require.Equal(t, date, validator(header(`"`)))
	require.Empty(t, validator(http.Header{}))
	require.True(t, changed(header(`W/"a"`), `"a"`))
	require.True(t, changed(header(`"b"`), `"a"`))
	require.False(t, changed(header(`"b"`), date))
	require.True(t, changed(header(`"b"`), "Tue, 14 Nov 2023 22:13:21 GMT"))
	require.False(t, changed(http.Header{}, `"a"`))
}

func TestRedact(t *testing.T) {
	for raw, want := range map[string]string{
		"https://h/a":                   "https://h/a",
		"https://u:p@h:1/a?sig=x#y":     "https://h:1/a?...",
		"https://u@h/a%20b":             "https://h/a%20b",
		"https://:p@[::1]:8/a?":         "https://[::1]:8/a?",
		"file:///a/b":                   "file:///a/b",
		"https://h/a@b":                 "https://h/a@b",
		"https://token@h/a?x=1&y=2&z=3": "https://h/a?...",
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		require.Equal(t, want, redact(u))
	}
	err := scrub(fmt.Errorf(`invalid proxy address "http://u:p/w@h": %w`, io.EOF))
	require.EqualError(t, err, `invalid proxy address "http://h": EOF`)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, io.EOF, scrub(io.EOF))
}

func TestMessages(t *testing.T) {
	for want, err := range map[string]error{
		"download of https://h/a: the server answered 404 Not Found":                                                       &Error{URL: "https://h/a", Final: "https://h/a", Tries: 1, Err: &StatusError{Status: 404}},
		"download of https://h/a (redirected to https://g/b): the server answered 503 Service Unavailable (after 6 tries)": &Error{URL: "https://h/a", Final: "https://g/b", Tries: 6, Err: &StatusError{Status: 503}},
		"the server answered with status 799":                                                                              &StatusError{Status: 799},
		"stalled while waiting for the body: nothing came for 30s":                                                         &StalledError{"waiting for the body", 30 * time.Second},
		"write /x/download.part: no space left on device (5 bytes are there, it needs 7 bytes more)":                       &DiskError{"/x/download.part", 5, 7, syscall.ENOSPC},
		"write /x/download.part: no space left on device (5 bytes are there, it needs an unknown number of bytes more)":    &DiskError{"/x/download.part", 5, -1, syscall.ENOSPC},
		"wrong size: the server has 5 bytes, expected 7":                                                                   &SizeError{Got: 5, Want: 7, Announced: true},
		"wrong size: more than the expected 7 bytes came":                                                                  &SizeError{Got: 7, Want: 7, More: true},
		"wrong size: 5 bytes came, expected 7":                                                                             &SizeError{Got: 5, Want: 7},
		"looks like a web page (captive portal or error page): wrong size: 5 bytes came, expected 7":                       &PageError{&SizeError{Got: 5, Want: 7}},
		"redirect from https://h/ to http://g/: it leads from https to http, where anybody can change what comes":          &RedirectError{"https://h/", "http://g/", 1, "it leads from https to http, where anybody can change what comes"},
	} {
		require.EqualError(t, err, want)
	}
}
