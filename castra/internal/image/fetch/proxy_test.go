package fetch

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// proxy is an HTTP proxy that knows CONNECT alone.
type proxy struct {
	url       *url.URL
	connected atomic.Int64
	user      atomic.Value // Proxy-Authorization of the last request
}

// startProxy starts one. names says where hosts are whose names no resolver
// knows.
func startProxy(t testing.TB, names map[string]string) *proxy {
	p := &proxy{}
	var tunnels sync.WaitGroup
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.user.Store(r.Header.Get("Proxy-Authorization"))
		to := r.Host
		if at, known := names[to]; known {
			to = at
		}
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT alone", http.StatusMethodNotAllowed)
			return
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		p.connected.Add(1)
		near, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		tunnels.Add(2)
		go tunnel(far, near, tunnels.Done)
		go tunnel(near, far, tunnels.Done)
	}))
	t.Cleanup(func() {
		s.Close()
		tunnels.Wait()
	})
	p.url, _ = url.Parse(s.URL)
	return p
}

func tunnel(to, from net.Conn, done func()) {
	defer done()
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

func throughProxy(t *testing.T, target, through string, img image) Request {
	r := request(t, target, img)
	u, err := url.Parse(through)
	require.NoError(t, err)
	r.Client.Transport.(*http.Transport).Proxy = http.ProxyURL(u)
	return r
}

func TestProxy(t *testing.T) {
	img := newImage(imageSize)
	s := serve(t, content(img))
	p := startProxy(t, map[string]string{"images.test:443": s.Listener.Addr().String()})
	p.url.User = url.UserPassword("me", "s3cret")
	r := throughProxy(t, "https://images.test/disk.qcow2", p.url.String(), img)
	require.NoError(t, Get(t.Context(), r))
	requireWhole(t, r, img)
	require.EqualValues(t, 1, p.connected.Load())
	require.Equal(t, "Basic bWU6czNjcmV0", p.user.Load())
}

func TestProxiesInTrouble(t *testing.T) {
	img := newImage(100)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) }))
	defer refusing.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for name, c := range map[string]struct{ proxy, says string }{
		"wants a password": {refusing.URL, "Proxy Authentication Required"},
		"silent":           {"http://" + silent.Addr().String(), "stalled while waiting for"},
		"not there":        {"http://me:s3cret@" + closed.Addr().String(), "refused"},
		"knows not where":  {startProxy(t, nil).url.String(), "Bad Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			r := throughProxy(t, "https://127.0.0.1:1/disk.qcow2", c.proxy, img)
			if name == "silent" {
				r.Limits.Header = 200 * time.Millisecond
			}
			err := Get(t.Context(), r)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "s3cret")
			require.Equal(t, 1, e.Tries)
			require.Empty(t, names(t, filepath.Dir(r.Part)))
		})
	}
}

func TestUnreadableProxyKeepsItsPassword(t *testing.T) {
	r := request(t, "https://127.0.0.1:1/", newImage(10))
	r.Client.Transport.(*http.Transport).Proxy = func(*http.Request) (*url.URL, error) {
		return url.Parse(strings.Join([]string{"http://me:s3cret@host", "name/"}, " "))
	}
	err := Get(t.Context(), r)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "s3cret")
}
