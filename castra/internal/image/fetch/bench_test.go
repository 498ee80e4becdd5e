package fetch

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/image/digest"
)

// serveChild serves the file that is its argument, beside which lie a
// certificate and its key, until its standard input ends.
func serveChild(file string) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	s := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }),
		TLSConfig: &tls.Config{NextProtos: []string{"http/1.1"}},
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		_ = s.Close()
	}()
	_ = s.ServeTLS(l, file+".crt", file+".key")
	return 0
}

// BenchmarkGet gives the speed of a download from a server in another process
// over loopback TLS, beside that of curl into the same directory, and of curl
// and the digest one after another, which is what Get does: of each the
// best of the rounds, which take turns.
func BenchmarkGet(b *testing.B) {
	onlyLinux(b)
	if _, err := exec.LookPath("curl"); err != nil {
		b.Skip(err)
	}
	const size = 500_000_000
	dir := b.TempDir()
	file := filepath.Join(dir, "disk")
	block := newImage(1_000_000).data
	f, err := os.Create(file)
	require.NoError(b, err)
	for range size / len(block) {
		_, err = f.Write(block)
		require.NoError(b, err)
	}
	require.NoError(b, f.Close())
	writeLeaf(b, file)
	server := child(b, "serve", file)
	stdin, err := server.StdinPipe()
	require.NoError(b, err)
	stdout, err := server.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, server.Start())
	b.Cleanup(func() { stdin.Close(); _ = server.Wait() })
	address, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	url := "https://" + strings.TrimSpace(address) + "/disk"
	for _, algorithm := range []string{digest.SHA512, digest.SHA256} {
		b.Run(algorithm, func(b *testing.B) {
			want, err := digest.File(b.Context(), file, algorithm, nil)
			require.NoError(b, err)
			ours, theirs, whole := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			part := filepath.Join(dir, "part")
			var ourCPU, theirCPU time.Duration
			for b.Loop() {
				begin, used := time.Now(), cpu(b)
				require.NoError(b, Get(b.Context(), Request{URL: url, Digest: want, Size: size, Part: part, Client: client(b)}))
				ours = min(ours, time.Since(begin))
				ourCPU += cpu(b) - used
				require.NoError(b, os.Remove(part))
				begin = time.Now()
				curl := exec.CommandContext(b.Context(), "curl", "-sS", "--cacert", file+".ca", "-o", part, url)
				out, err := curl.CombinedOutput()
				require.NoError(b, err, string(out))
				theirCPU += curl.ProcessState.UserTime() + curl.ProcessState.SystemTime()
				theirs = min(theirs, time.Since(begin))
				require.NoError(b, exec.CommandContext(b.Context(), algorithm+"sum", part).Run())
				whole = min(whole, time.Since(begin))
				require.NoError(b, os.Remove(part))
			}
			b.ReportMetric(size/ours.Seconds()/1e6, "MB/s")
			b.ReportMetric(size/theirs.Seconds()/1e6, "curl-MB/s")
			b.ReportMetric(ourCPU.Seconds()/float64(b.N), "cpu-s")
			b.ReportMetric(theirCPU.Seconds()/float64(b.N), "curl-cpu-s")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
			b.ReportMetric(whole.Seconds()/ours.Seconds(), "ratio-to-all")
		})
	}
}

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var r unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
