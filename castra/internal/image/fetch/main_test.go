package fetch

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"castra.example/castra/castra/internal/image/digest"
)

// A test that needs a process of its own runs this binary again, with the name
// of what to do in childVariable.
const childVariable = "CASTRA_FETCH_TEST_CHILD"

func TestMain(m *testing.M) {
	if child := os.Getenv(childVariable); child != "" {
		os.Exit(children[child](os.Args[len(os.Args)-1]))
	}
	goleak.VerifyTestMain(m)
}

// children are the child processes: each takes one argument and gives the exit
// status.
var children = map[string]func(arg string) int{
	"get":      getChild,
	"serve":    serveChild,
	"fulldisk": fullDiskChild,
}

// getChild gets the Request that is its argument, in JSON, and prints the error.
func getChild(arg string) int {
	r, err := childRequest(arg)
	if err != nil {
		fmt.Println(err)
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := Get(ctx, r); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// childRequest reads the part of a Request that can be written.
func childRequest(arg string) (Request, error) {
	var r struct {
		URL, Part string
		Digest    digest.Digest
		Size      int64
		Limits    Limits
	}
	err := json.Unmarshal([]byte(arg), &r)
	return Request{URL: r.URL, Digest: r.Digest, Size: r.Size, Part: r.Part, Limits: r.Limits}, err
}

// authority signs certificates for servers of these tests.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority() *authority {
	a := &authority{key: newKey()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Castra test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = sign(template, template, a.key, a.key)
	return a
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

// leaf is a server's certificate for 127.0.0.1 and images.test, changed by
// change where that is not nil.
func (a *authority) leaf(change func(*x509.Certificate)) tls.Certificate {
	key := newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"images.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	return tls.Certificate{Certificate: [][]byte{sign(template, a.cert, key, a.key).Raw}, PrivateKey: key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

var (
	ca     = sync.OnceValue(newAuthority)
	caLeaf = sync.OnceValue(func() tls.Certificate { return ca().leaf(nil) })
)

// image is a made-up file to download.
type image struct {
	data   []byte
	digest digest.Digest
}

func newImage(size int) image {
	data := make([]byte, size)
	random := mathrand.NewChaCha8([32]byte{byte(size), byte(size >> 8)})
	_, _ = random.Read(data)
	return image{data, digestOf(data)}
}

func digestOf(data []byte) digest.Digest {
	sum := sha512.Sum512(data)
	return digest.Digest{Algorithm: digest.SHA512, Hex: hex.EncodeToString(sum[:])}
}

// server is an HTTPS server that keeps a list of what it was asked.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []http.Header
	paths    []string
}

// serve starts a server. The handler gets the number of the request, from 1.
func serve(t testing.TB, handler func(w http.ResponseWriter, r *http.Request, n int)) *server {
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Header.Clone())
		s.paths = append(s.paths, r.URL.Path)
		n := len(s.requests)
		s.mu.Unlock()
		handler(w, r, n)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{caLeaf()}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// asked is how many requests came.
func (s *server) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// header is a header of the nth request.
func (s *server) header(n int, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[n-1].Get(name)
}

// client trusts the tests' CA alone.
func client(t testing.TB) *http.Client {
	c := DefaultClient()
	roots := x509.NewCertPool()
	roots.AddCert(ca().cert)
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// quick are limits with pauses that tests can wait for, and none on waiting
// that a busy machine could hit.
func quick() Limits {
	return Limits{Connect: time.Minute, TLS: time.Minute, Header: time.Minute, Stall: time.Minute,
		Backoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, RetryAfter: 3 * time.Millisecond}
}

// request asks for an image, into a new directory, without saying its size.
func request(t testing.TB, url string, img image) Request {
	return Request{URL: url, Digest: img.digest, Part: filepath.Join(t.TempDir(), "download.part"), Client: client(t), Limits: quick()}
}

// requireWhole checks all that Get promises when it returns nil.
func requireWhole(t testing.TB, r Request, img image) {
	t.Helper()
	data, err := os.ReadFile(r.Part)
	require.NoError(t, err)
	require.True(t, string(img.data) == string(data), "the bytes are those of the image")
	st, err := os.Lstat(r.Part)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())
	require.Equal(t, []string{"download.part"}, names(t, filepath.Dir(r.Part)), "no record is left")
}

func names(t testing.TB, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	all := []string{}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// content serves an image the way a good server does.
func content(img image) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, r *http.Request, _ int) { serveImage(w, r, img, `"v1"`) }
}

func serveImage(w http.ResponseWriter, r *http.Request, img image, tag string) {
	w.Header().Set("ETag", tag)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, &sliceReader{data: img.data})
}

// sliceReader is bytes.Reader without WriteTo, whose one huge write a cut
// cannot be made in.
type sliceReader struct {
	data []byte
	at   int64
}

func (s *sliceReader) Read(p []byte) (int, error) {
	if s.at >= int64(len(s.data)) {
		return 0, io.EOF
	}
	n := copy(p, s.data[s.at:])
	s.at += int64(n)
	return n, nil
}

func (s *sliceReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		s.at = offset
	case io.SeekCurrent:
		s.at += offset
	case io.SeekEnd:
		s.at = int64(len(s.data)) + offset
	}
	return s.at, nil
}

// reset breaks the connection as a crashed peer does.
func reset(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if c, ok := conn.(*tls.Conn); ok {
		_ = c.NetConn().(*net.TCPConn).SetLinger(0)
		_ = c.NetConn().Close()
		return
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// cut breaks the connection after so many bytes of the body.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	c.left = 0
	c.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// writeLeaf puts a certificate, its key and the CA beside file.
func writeLeaf(t testing.TB, file string) {
	leaf := caLeaf()
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(file+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	require.NoError(t, os.WriteFile(file+".ca", ca().pem(), 0o600))
}
