package fetch

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is read of a Content-Range is what is written there, and a span within its total.
func FuzzContentRange(f *testing.F) {
	for _, text := range []string{"bytes 5-9/10", "Bytes 0-0/1", " bytes 5-9/* ", "", "bytes */10", "bytes -9/10", "bytes 5-10/10", "bytes +5-9/10", "bytes 0-1/2/3",
		"bytes 0-9223372036854775807/*", "bytes 0-99999999999999999999/*", "bytes 0-1/-1", "bytes\t0-1/2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := parseContentRange(text)
		if !ok {
			return
		}
		if r.first < 0 || r.last < r.first || r.total != -1 && r.total <= r.last {
			t.Fatalf("%q: %+v", text, r)
		}
		again, ok := parseContentRange(fmt.Sprintf("bytes %d-%d/%s", r.first, r.last, strings.Replace(fmt.Sprint(r.total), "-1", "*", 1)))
		require.True(t, ok)
		require.Equal(t, r, again)
	})
}

// What stands in a header of a response is sent back in one line at most, and no wait is below zero.
func FuzzHeaders(f *testing.F) {
	f.Add(`"v1"`, "Tue, 14 Nov 2023 22:13:20 GMT", "120", "text/html; charset=utf-8")
	f.Add(`W/"v1"`, "soon", "Sat, 01 Aug 2026 12:00:30 GMT", "TEXT/HTML")
	f.Add("\"a\r\nX: y\"", "\x00", "-5", ";")
	f.Add(`"`, "", "4294967296", "application/xhtml+xml")
	f.Fuzz(func(t *testing.T, tag, modified, after, kind string) {
		h := http.Header{"Etag": {tag}, "Last-Modified": {modified}, "Content-Type": {kind}}
		v := validator(h)
		if sendable(v) && strings.ContainsAny(v, "\r\n\x00") {
			t.Fatalf("%q", v)
		}
		if v != "" && changed(h, v) {
			t.Fatalf("%q is another file than itself", v)
		}
		if retryAfter(after, time.Unix(1_700_000_000, 0)) < 0 {
			t.Fatalf("%q", after)
		}
		isPage(h)
	})
}

// A record that is taken up is of this download, and its validator can be sent.
func FuzzRecord(f *testing.F) {
	want := digestOf([]byte("a disk"))
	const url = "https://h/disk"
	f.Add([]byte(fmt.Sprintf(`{"url":%q,"digest":%q,"validator":"\"v1\"","bytes":5}`, url, want)))
	for _, text := range []string{"", "{", "null", "[]", `{"bytes":-5}`, `{"bytes":1e400}`, `{"validator":"\r\n"}`, "\x00"} {
		f.Add([]byte(text))
	}
	part := filepath.Join(f.TempDir(), "part")
	f.Fuzz(func(t *testing.T, b []byte) {
		require.NoError(t, os.WriteFile(part+recordSuffix, b, 0o600))
		r, err := readRecord(part)
		require.NoError(t, err)
		if !r.resumes(url, want, 100, 50) {
			return
		}
		require.Equal(t, url, r.URL)
		require.LessOrEqual(t, r.Bytes, int64(50))
		require.NotEmpty(t, r.Validator)
		require.False(t, strings.ContainsAny(r.Validator, "\r\n"))
	})
}
