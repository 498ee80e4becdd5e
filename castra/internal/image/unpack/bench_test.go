package unpack

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
)

// BenchmarkFile unpacks 32 MiB, a quarter of it noise, a quarter text and half
// zeros; the rate is of what comes out.
func BenchmarkFile(b *testing.B) {
	want := disk(32 << 20)
	for name, packed := range map[string][]byte{"gz": gzipped(b, want), "xz": xzipped(b, want, xz.WriterConfig{}), "zst": zstded(b, want, zstd.WithEncoderConcurrency(1))} {
		b.Run(name, func(b *testing.B) {
			src, err := os.CreateTemp(b.TempDir(), "in")
			require.NoError(b, err)
			defer src.Close()
			_, err = src.Write(packed)
			require.NoError(b, err)
			b.SetBytes(int64(len(want)))
			var took time.Duration
			for b.Loop() {
				_, err = src.Seek(0, io.SeekStart)
				require.NoError(b, err)
				dst, err := os.CreateTemp(b.TempDir(), "out")
				require.NoError(b, err)
				began := time.Now()
				_, err = File(b.Context(), src, dst, Limits{}, nil)
				took += time.Since(began)
				require.NoError(b, err)
				dst.Close()
			}
			b.ReportMetric(float64(len(packed))*float64(b.N)/1e6/took.Seconds(), "packedMB/s")
		})
	}
}
