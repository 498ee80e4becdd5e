package host

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// PortOwner names the process that listens on a port of this computer, as
// "pid 123 (nginx)"; "" when nobody does or it cannot be told (another user's
// process). Protocol is "tcp" or "udp"; ip may be unspecified.
func PortOwner(protocol string, port int) string {
	inodes := map[string]bool{}
	for _, suffix := range []string{"", "6"} {
		for _, l := range listeners("/proc/net/"+protocol+suffix, protocol, port) {
			inodes["socket:["+l.inode+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			pid := strings.Split(fd, "/")[2]
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("pid %s (%s)", pid, strings.TrimSpace(string(comm)))
		}
	}
	return ""
}

// ListensIPv6 tells that someone takes TCP connections to port on the loopback
// address of IPv6, where a client that is told "localhost" may end up.
func ListensIPv6(port int) bool {
	return slices.ContainsFunc(listeners("/proc/net/tcp6", "tcp", port), func(l listener) bool {
		return l.ip == netip.IPv6Loopback() || l.ip == netip.IPv6Unspecified()
	})
}

type listener struct {
	ip    netip.Addr
	inode string
}

// listeners reads the sockets bound to port from a table such as /proc/net/tcp
// (format: Linux Documentation/networking/proc_net_tcp.rst).
func listeners(table, protocol string, port int) []listener {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseListeners(io.LimitReader(f, 8<<20), protocol, port)
}

func parseListeners(table io.Reader, protocol string, port int) []listener {
	const tcpListen = "0A"
	var all []listener
	for s := bufio.NewScanner(table); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 10 || (protocol == "tcp" && fields[3] != tcpListen) {
			continue
		}
		if local, ok := parseLocal(fields[1]); ok && int(local.Port()) == port {
			all = append(all, listener{local.Addr(), fields[9]})
		}
	}
	return all
}

// parseLocal reads "0100007F:1F90": each 32-bit word of the address in the
// host's byte order, the port big-endian.
func parseLocal(s string) (netip.AddrPort, bool) {
	addr, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(addr)
	p, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip, uint16(p)), ok
}
