package config

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzSizes: a size is a whole number of MiB within its bounds, the one that its digits and unit say, or is refused in few words.
func FuzzSizes(f *testing.F) {
	for _, s := range []string{"2 GiB", "1.5G", "2048", " 64 MiB\t", "0.5 GiB", "1e3 M", "999999999999 GiB", "0x40", "-1", "NaN", "inf GiB", "1_000", "６４ MiB", "64\u00a0MiB", "1.0000000001 GiB", "16777216", "16 tib", "", ".5 G", "1. G"} {
		f.Add(s, int64(64))
	}
	f.Add("", int64(-1))
	f.Add("", int64(1<<62))
	f.Fuzz(func(t *testing.T, s string, n int64) {
		for what, parse := range map[string]func(any) (int, error){
			"memory": ParseMemory,
			"disk":   func(v any) (int, error) { return parseSize(v, "a disk", diskUnits, 1, "1 MiB") },
		} {
			least := map[string]int{"memory": minMemoryMiB, "disk": 1}[what]
			mib, err := parse(n)
			require.Equal(t, n >= int64(least) && n <= maxMemoryMiB, err == nil)
			require.True(t, err != nil || int64(mib) == n)
			mib, err = parse(s)
			if err != nil {
				require.Zero(t, mib)
				require.Less(t, len(err.Error()), 400)
				continue
			}
			require.True(t, mib >= least && mib <= maxMemoryMiB, "%q: %d", s, mib)
			require.Equal(t, exact(t, s), big.NewRat(int64(mib), 1), s)
		}
	})
}

// exact is the size without rounding.
func exact(t *testing.T, s string) *big.Rat {
	t.Helper()
	s = strings.ToLower(strings.TrimSpace(s))
	digits := strings.TrimRight(s, " abcdefghijklmnopqrstuvwxyz")
	number, ok := new(big.Rat).SetString(digits)
	require.True(t, ok, digits)
	unit, ok := map[string]int64{"": 1, "m": 1, "mb": 1, "mib": 1, "g": 1 << 10, "gb": 1 << 10, "gib": 1 << 10, "t": 1 << 20, "tb": 1 << 20, "tib": 1 << 20}[strings.TrimSpace(s[len(digits):])]
	require.True(t, ok, s)
	return number.Mul(number, big.NewRat(unit, 1))
}

// FuzzForwards: the port, the protocol and the address of a rule are such as QEMU can be told, or the file is refused.
func FuzzForwards(f *testing.F) {
	f.Add(int64(8080), int64(80), "tcp", "127.0.0.1")
	f.Add(int64(0), int64(65535), "udp", "0.0.0.0")
	f.Add(int64(-1), int64(0), "TCP", "localhost")
	f.Add(int64(65536), int64(1<<40), "tcp,hostfwd=tcp::1-:1", "127.0.0.1,restrict=off")
	f.Add(int64(1), int64(1), "tcp", "::1")
	f.Fuzz(func(t *testing.T, host, guest int64, protocol, ip string) {
		p, err := Load(write(t, head+web+fmt.Sprintf("port_forwards = [{host = %d, guest = %d, protocol = %s, host_ip = %s}]\n", host, guest, quote(protocol), quote(ip))))
		if err != nil {
			require.ErrorAs(t, err, new(Faults))
			return
		}
		rule := p.VMs[0].Forwards[0]
		require.Equal(t, host, int64(rule.HostPort))
		require.Equal(t, guest, int64(rule.GuestPort))
		require.Regexp(t, `^([0-9]{1,3}\.){3}[0-9]{1,3}:(tcp|udp):[0-9]{1,5}:[0-9]{1,5}$`, fmt.Sprintf("%s:%s:%d:%d", rule.HostIP, rule.Protocol, rule.HostPort, rule.GuestPort))
		require.True(t, host >= 0 && host <= maxPort && guest > 0 && guest <= maxPort)
	})
}
