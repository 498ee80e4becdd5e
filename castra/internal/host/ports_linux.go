package host

import (
	"bufio"
	"context"
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

	"golang.org/x/sys/unix"
)

// PortOwner finds the process that keeps others from listening on a port of
// the address ip of this computer; "" or an unspecified one is all addresses.
// Zero when nobody does or it cannot be told (another user's process).
// Protocol is "tcp" or "udp".
func PortOwner(protocol, ip string, port int) Owner {
	inodes := map[string]bool{}
	for _, l := range blockers(protocol, ip, port) {
		inodes["socket:["+l.inode+"]"] = true
	}
	if len(inodes) == 0 {
		return Owner{}
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			return Owner{pid, strings.TrimSpace(string(comm))}
		}
	}
	return Owner{}
}

// blockers are the sockets that keep others from a port of ip.
func blockers(protocol, ip string, port int) (all []listener) {
	wanted, _ := netip.ParseAddr(ip)
	for _, suffix := range []string{"", "6"} {
		for _, l := range listeners("/proc/net/"+protocol+suffix, protocol, port) {
			if inTheWay(l.ip, wanted.Unmap()) {
				all = append(all, l)
			}
		}
	}
	return all
}

// inTheWay tells that a socket of the one address may keep another from the
// same port of the other. One of all IPv6 addresses has those of IPv4 too,
// unless its owner has asked for less, which cannot be seen.
func inTheWay(there, wanted netip.Addr) bool {
	there = there.Unmap()
	switch {
	case !wanted.IsValid() || wanted.IsUnspecified():
		return !wanted.Is4() || there.Is4() || there.IsUnspecified()
	case there.IsUnspecified():
		return there.Is6() || wanted.Is4()
	default:
		return there == wanted
	}
}

// Bindable tries whether a socket can be bound to a port of the address ip now.
// It keeps nobody from doing so meanwhile: of several that try and one that
// takes the port, all succeed.
func Bindable(ctx context.Context, protocol, ip string, port int) error {
	if protocol == "udp" && port >= 1024 { // two of these are always in each other's way: the table of sockets tells
		there := blockers("udp", ip, port)
		if slices.ContainsFunc(there, func(l listener) bool { return l.ip.Unmap() != netip.IPv6Unspecified() }) {
			return os.NewSyscallError("bind", unix.EADDRINUSE)
		}
		if len(there) == 0 {
			port = 0 // whether the address is ours
		}
	}
	addr, err := netip.ParseAddr(ip)
	if protocol == "udp" || err != nil {
		return tryListen(ctx, protocol, ip, port)
	}
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port, Addr: addr.As16()})
	if addr.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: addr.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	// Of two that both say this and do not listen, neither is in the other's way.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, to))
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
