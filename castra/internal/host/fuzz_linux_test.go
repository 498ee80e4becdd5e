package host

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func seedWith(f *testing.F, path string) {
	f.Helper()
	b, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(b)
}

// Whatever the kernel's table holds, what is taken for a listener is on the port asked for.
func FuzzListeners(f *testing.F) {
	seedWith(f, "/proc/net/tcp")
	seedWith(f, "/proc/net/udp6")
	const row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 4711 1 0 100 0 0 10 0\n"
	for _, text := range []string{row, strings.Replace(row, "1F90", "11F90", 1), strings.Replace(row, "0100007F", "0100007F01", 1), strings.Replace(row, "4711", "", 1), "a b c d:e f:g 0A h i j k l\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, protocol := range []string{"tcp", "udp"} {
			all, _ := parseListeners(bytes.NewReader(table), protocol, 8080) // a line may be too long to be one
			for _, l := range all {
				require.True(t, l.ip.IsValid())
				require.Contains(t, string(bytes.ToUpper(table)), "1F90")
				require.NotEmpty(t, l.inode)
			}
		}
	})
}

// What the kernel escapes is read back, and a table of anything gives no more mounts than it has lines.
func FuzzMounts(f *testing.F) {
	seedWith(f, "/proc/self/mountinfo")
	f.Add([]byte(`1 2 0:3 / /a\040b\011c\012d\134e rw - x y z` + "\n"))
	f.Add([]byte(`1 2 0:3 / \0 \04 \999 \400 \`))
	f.Fuzz(func(t *testing.T, data []byte) {
		require.LessOrEqual(t, len(parseMounts(string(data))), 1+strings.Count(string(data), "\n"))
		path := "/" + strings.ReplaceAll(string(data), "\x00", "")
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(path)
		if strings.ContainsAny(escaped, "\v\f\r\u0085\u00a0") || len(strings.Fields(escaped)) != 1 {
			return // which ends a field for us, and is none of what the kernel escapes
		}
		require.Equal(t, []string{path}, parseMounts("1 2 0:3 / "+escaped+" rw - x y z\n"))
	})
}

// A process may be called anything.
func FuzzStat(f *testing.F) {
	seedWith(f, "/proc/self/stat")
	f.Add([]byte("1 (a) Z"))
	f.Add([]byte(""))
	f.Add([]byte(") Z ("))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = stateOf(data)
		name := data[:min(len(data), 15)]
		for _, state := range "RSDZTtX" {
			require.Equal(t, byte(state), stateOf(fmt.Appendf(nil, "4711 (%s) %c 1 4711 4711 0 -1 4194304 93\n", name, state)))
		}
	})
}

func FuzzMeminfo(f *testing.F) {
	seedWith(f, "/proc/meminfo")
	f.Add([]byte("MemTotal: 18446744073709551615 kB\n"))
	f.Add([]byte("MemTotal:\nMemTotal: -1 kB\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		bytes, err := parseMeminfo(bytes.NewReader(data), "MemTotal:")
		require.True(t, err != nil || bytes%1024 == 0)
		require.True(t, err != nil || strings.Contains(string(data), fmt.Sprint(bytes>>10)), "%d", bytes>>10)
	})
}
