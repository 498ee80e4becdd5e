package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCertificates(t *testing.T) {
	img := newImage(100)
	stranger := newAuthority()
	self := func() tls.Certificate {
		key := newKey()
		own := &authority{key: key, cert: &x509.Certificate{}}
		return own.leaf(nil)
	}
	for name, c := range map[string]struct {
		cert tls.Certificate
		says string
	}{
		"expired":       {ca().leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired"},
		"of the future": {ca().leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour / 2) }), "not yet valid"},
		"wrong host":    {ca().leaf(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }), "127.0.0.1"},
		"unknown CA":    {stranger.leaf(nil), "unknown authority"},
		"self-signed":   {self(), "unknown authority"},
		"for clients":   {ca().leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.TLS = &tls.Config{Certificates: []tls.Certificate{c.cert}}
			s.StartTLS()
			defer s.Close()
			r := request(t, s.URL, img)
			err := Get(t.Context(), r)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, 1, e.Tries, "a certificate does not get better")
			require.Contains(t, e.Hint(), "clock")
			require.Empty(t, names(t, filepath.Dir(r.Part)))
		})
	}
}

// A peer that breaks off in the handshake is tried again, and given up.
func TestHandshakesBreak(t *testing.T) {
	img := newImage(100)
	for name, answer := range map[string]func(net.Conn){
		"reset at once": func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) },
		"reset after the hello": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1<<14))
			_ = c.(*net.TCPConn).SetLinger(0)
		},
		"closed after the hello": func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<14)) },
		"half a record":          func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 3, 1, 0, 2}) },
		"an alert":               func(c net.Conn) { _, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 40}) },
		"a page without TLS":     func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			var served sync.WaitGroup
			served.Go(func() {
				for c, err := l.Accept(); err == nil; c, err = l.Accept() {
					answer(c)
					_ = c.Close()
				}
			})
			r := request(t, "https://"+l.Addr().String(), img)
			err = Get(t.Context(), r)
			require.NoError(t, l.Close())
			served.Wait()
			var e *Error
			require.ErrorAs(t, err, &e)
			require.LessOrEqual(t, e.Tries, 6)
			require.NotEmpty(t, e.Hint())
			require.Empty(t, names(t, filepath.Dir(r.Part)))
		})
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{caLeaf()}, MaxVersion: tls.VersionTLS11}
	s.StartTLS()
	defer s.Close()
	require.ErrorContains(t, Get(t.Context(), request(t, s.URL, newImage(10))), "protocol version")
}

// servePlain is a server without TLS.
func servePlain(t *testing.T, handler func(http.ResponseWriter, *http.Request, int)) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(w, r, 0) }))
	t.Cleanup(s.Close)
	return s
}

func TestPortsWithoutTLS(t *testing.T) {
	img := newImage(100)
	plain := servePlain(t, content(img))
	_, port, err := net.SplitHostPort(strings.TrimPrefix(plain.URL, "http://"))
	require.NoError(t, err)
	var e *Error
	require.ErrorAs(t, Get(t.Context(), request(t, "https://127.0.0.1:"+port, img)), &e)
	require.Equal(t, 1, e.Tries)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := request(t, "https://"+l.Addr().String(), img)
	r.Limits.TLS = 100 * time.Millisecond
	err = Get(t.Context(), r)
	require.True(t, stalled(err), "%v", err)
	require.ErrorContains(t, err, "stalled while waiting for the TLS handshake")

	require.NoError(t, l.Close())
	require.ErrorAs(t, Get(t.Context(), r), &e, "nobody listens any more")
	require.ErrorContains(t, e, "refused")
	require.Equal(t, 1, e.Tries)
	require.NoFileExists(t, r.Part)
}

// A server that was there is waited for when it restarts.
func TestServerRestarts(t *testing.T) {
	img := newImage(imageSize)
	var r Request
	s := serve(t, func(w http.ResponseWriter, req *http.Request, n int) {
		if n > 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		serveImage(&cut{w, imageSize / 2}, req, img, `"v1"`)
	})
	at, err := url.Parse(s.URL)
	require.NoError(t, err)
	r = request(t, s.URL, img)
	r.Limits.Retries, r.Limits.Backoff, r.Limits.MaxBackoff = 1000, 10*time.Millisecond, 10*time.Millisecond
	result := make(chan error, 1)
	go func() { result <- Get(t.Context(), r) }()
	require.Eventually(t, func() bool {
		st, err := os.Stat(r.Part)
		return err == nil && st.Size() == imageSize/2
	}, 20*time.Second, time.Millisecond)
	s.Close()
	l, err := net.Listen("tcp", at.Host)
	require.NoError(t, err)
	again := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { serveImage(w, req, img, `"v1"`) }),
		ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{caLeaf()}}}
	defer again.Close()
	go func() { _ = again.ServeTLS(l, "", "") }()
	require.NoError(t, <-result)
	requireWhole(t, r, img)
}
