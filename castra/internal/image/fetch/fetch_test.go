package fetch

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image/digest"
)

func TestGet(t *testing.T) {
	for _, size := range []int{1, 1000, bufferSize - 1, bufferSize, bufferSize + 1, bufferCount*bufferSize*2 + 7} {
		img := newImage(size)
		s := serve(t, content(img))
		for _, known := range []int64{0, int64(size)} {
			r := request(t, s.URL+"/a%20b.qcow2?x=1", img)
			r.Size = known
			var done, total int64
			r.Progress = func(d, n int64) { done, total = d, n }
			require.NoError(t, Get(t.Context(), r))
			requireWhole(t, r, img)
			require.Equal(t, []int64{int64(size), int64(size)}, []int64{done, total})
			require.Equal(t, "identity", s.header(s.asked(), "Accept-Encoding"))
			require.Empty(t, s.header(s.asked(), "Range"))
		}
		require.Equal(t, 2, s.asked(), "one request each")
	}
}

func TestGetSHA256(t *testing.T) {
	img := newImage(5000)
	s := serve(t, content(img))
	r := request(t, s.URL, img)
	path := filepath.Join(t.TempDir(), "same")
	require.NoError(t, os.WriteFile(path, img.data, 0o600))
	var err error
	r.Digest, err = digest.File(t.Context(), path, digest.SHA256, nil)
	require.NoError(t, err)
	require.NoError(t, Get(t.Context(), r))
	requireWhole(t, r, img)
}

func TestProgressIsSeldomAndNeverBackwards(t *testing.T) {
	img := newImage(200_000)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Content-Length", "200000")
		for at := 0; at < len(img.data); at += 1000 {
			_, _ = w.Write(img.data[at : at+1000])
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	r := request(t, s.URL, img)
	calls, last, begin := 0, int64(0), time.Now()
	r.Progress = func(done, total int64) {
		require.GreaterOrEqual(t, done, last)
		require.Equal(t, int64(200_000), total)
		last = done
		calls++
	}
	require.NoError(t, Get(t.Context(), r))
	require.Equal(t, int64(200_000), last)
	require.LessOrEqual(t, calls, int(time.Since(begin)/progressEvery)+2, "the first and the last besides one each 100 ms")
}

func TestRequestsThatAreRefused(t *testing.T) {
	img := newImage(10)
	part := filepath.Join(t.TempDir(), "download.part")
	for name, c := range map[string]struct {
		change func(*Request)
		says   string
	}{
		"http":                 {func(r *Request) { r.URL = "http://127.0.0.1/x" }, "only https"},
		"file":                 {func(r *Request) { r.URL = "file:///etc/hostname" }, "only https"},
		"ftp":                  {func(r *Request) { r.URL = "ftp://127.0.0.1/x"; r.AllowPlain = true }, "not an https URL"},
		"path":                 {func(r *Request) { r.URL = "/etc/hostname"; r.AllowPlain = true }, "not an https URL"},
		"empty":                {func(r *Request) { r.URL = "" }, "not an https URL"},
		"no host":              {func(r *Request) { r.URL = "https:///x" }, "no host"},
		"file of another host": {func(r *Request) { r.URL = "file://server/x"; r.AllowPlain = true }, "three slashes"},
		"relative file":        {func(r *Request) { r.URL = "file:x"; r.AllowPlain = true }, "three slashes"},
		"no digest":            {func(r *Request) { r.Digest = digest.Digest{} }, "digest is required"},
		"bad digest":           {func(r *Request) { r.Digest.Hex = "abc" }, "digest is required"},
		"upper-case digest":    {func(r *Request) { r.Digest.Hex = strings.ToUpper(r.Digest.Hex) }, "not as digest.Parse"},
		"relative part":        {func(r *Request) { r.Part = "download.part" }, "not absolute"},
		"negative size":        {func(r *Request) { r.Size = -1 }, "size -1"},
		"unreadable":           {func(r *Request) { r.URL = "https://user:s3c/ret@host/" }, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Request{URL: "https://127.0.0.1:1/x", Digest: img.digest, Part: part}
			c.change(&r)
			err := Get(t.Context(), r)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "s3c")
			require.NoFileExists(t, part)
		})
	}
}

// Nothing that is printed holds what is secret in a URL.
func TestSecretsAreNotPrinted(t *testing.T) {
	img := newImage(10)
	plain := "never:s3cret@"
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Path == "/gone" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	})
	host := strings.TrimPrefix(s.URL, "https://")
	for _, to := range []string{
		"https://" + plain + host + "/gone", "http://" + plain + host, "ftp://" + plain + host, "https://never:s3c/ret@" + host,
		"https://" + plain + "127.0.0.1:1/", "/gone?token=s3cret", "//" + plain + host + "/gone#s3cret", "https://" + plain + host + "/%zz",
	} {
		r := request(t, "https://"+plain+host+"/image.qcow2?token=s3cret", img)
		r.URL += "&to=" + strings.NewReplacer("%", "%25", "#", "%23", "&", "%26", "?", "%3F").Replace(to)
		err := Get(t.Context(), r)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.ErrorContains(t, err, "https://"+host+"/image.qcow2")
		for _, secret := range []string{"s3c", "never"} {
			require.NotContains(t, err.Error()+e.Hint(), secret, to)
		}
		require.NotEmpty(t, e.Hint())
	}
	r := request(t, "https://"+plain+"127.0.0.1:1/x", img)
	require.NotContains(t, Get(t.Context(), r).Error(), "s3cret")
}

func TestUserinfoIsSentToItsServerAlone(t *testing.T) {
	img := newImage(100)
	other := serve(t, content(img))
	s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
		user, password, _ := r.BasicAuth()
		require.Equal(t, "me:pass word", user+":"+password)
		to := map[int]string{1: "/relative", 2: "https://" + r.Host + "/absolute", 3: other.URL}[n]
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	})
	r := request(t, strings.Replace(s.URL, "https://", "https://me:pass%20word@", 1), img)
	require.NoError(t, Get(t.Context(), r))
	requireWhole(t, r, img)
	require.Equal(t, 3, s.asked())
	require.Empty(t, other.header(1, "Authorization"))
}

func TestPlainMirror(t *testing.T) {
	img := newImage(3 * bufferSize)
	dir := t.TempDir()
	file := filepath.Join(dir, "my image#1.qcow2")
	require.NoError(t, os.WriteFile(file, img.data, 0o600))
	get := func(name string, size int64) (Request, error) {
		r := request(t, "file://"+dir+"/"+name, img)
		r.AllowPlain, r.Size = true, size
		return r, Get(t.Context(), r)
	}
	for _, size := range []int64{0, int64(len(img.data))} {
		r, err := get("my%20image%231.qcow2", size)
		require.NoError(t, err)
		requireWhole(t, r, img)
	}
	r, err := get("none", 0)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoFileExists(t, r.Part)
	_, err = get(".", 0)
	require.ErrorContains(t, err, "no regular file")
	_, err = get("my%20image%231.qcow2", 5)
	var size *SizeError
	require.ErrorAs(t, err, &size)
	require.Equal(t, SizeError{Got: int64(len(img.data)), Want: 5, Announced: true}, *size)
	require.NoError(t, os.WriteFile(file, img.data[1:], 0o600))
	r, err = get("my%20image%231.qcow2", 0)
	var mismatch *digest.MismatchError
	require.ErrorAs(t, err, &mismatch)
	require.Empty(t, names(t, filepath.Dir(r.Part)))
}

func TestPlainHTTPMirror(t *testing.T) {
	img := newImage(1000)
	s := servePlain(t, content(img))
	r := request(t, s.URL, img)
	r.AllowPlain = true
	require.NoError(t, Get(t.Context(), r))
	requireWhole(t, r, img)
}

func TestCancelledBeforehand(t *testing.T) {
	img := newImage(1000)
	s := serve(t, content(img))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := request(t, s.URL, img)
	require.ErrorIs(t, Get(ctx, r), context.Canceled)
	require.Empty(t, names(t, filepath.Dir(r.Part)))
}
