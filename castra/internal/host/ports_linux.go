package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
		there, _ := listeners("/proc/net/"+protocol+suffix, protocol, port) // IPv6 may be off
		for _, l := range there {
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

// Serves tells whether TCP connections to addr, an address of this computer,
// are taken by pid and nobody else. ErrNobody says that nobody takes them; any
// other error, that it cannot be told: what another user's process has open is
// not shown.
func Serves(pid int, addr netip.AddrPort) (bool, error) {
	at, err := takers(addr)
	if err == nil && len(at) == 0 {
		err = ErrNobody
	}
	if err != nil {
		return false, err
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it has ended
	}
	if err != nil {
		return false, fmt.Errorf("sockets of process %d: %w", pid, err)
	}
	open := map[string]bool{}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // else closed meanwhile
			open[target] = true
		}
	}
	for _, l := range at {
		if !open["socket:["+l.inode+"]"] {
			return false, nil
		}
	}
	return true, nil
}

// takers are the sockets of which one takes a connection to addr: those bound
// to it, else those bound to all addresses. Several share one only where all of
// them ask for it. Those of IPv6 take IPv4 where none of IPv4 does; a table
// costs 1.5 ms, so theirs is read only then.
func takers(addr netip.AddrPort) ([]listener, error) {
	want := addr.Addr().Unmap()
	bound := []func(ip netip.Addr) bool{
		func(ip netip.Addr) bool { return ip.Unmap() == want },
		netip.Addr.IsUnspecified,
	}
	if want.Is4() {
		of4, err := listeners("/proc/net/tcp", "tcp", int(addr.Port()))
		if err != nil {
			return nil, fmt.Errorf("sockets of this computer: %w", err)
		}
		if found := first(of4, bound); len(found) > 0 {
			return found, nil
		}
	}
	of6, err := listeners("/proc/net/tcp6", "tcp", int(addr.Port()))
	if err != nil && (!want.Is4() || !errors.Is(err, fs.ErrNotExist)) { // there is none where IPv6 is off
		return nil, fmt.Errorf("sockets of this computer: %w", err)
	}
	return first(of6, bound), nil
}

// first are the listeners for which the first of the conditions holds that
// holds for any.
func first(all []listener, conditions []func(netip.Addr) bool) []listener {
	for _, holds := range conditions {
		found := slices.DeleteFunc(slices.Clone(all), func(l listener) bool { return !holds(l.ip) })
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// ListensIPv6 tells that someone takes TCP connections to port on the loopback
// address of IPv6, where a client that is told "localhost" may end up.
func ListensIPv6(port int) bool {
	all, _ := listeners("/proc/net/tcp6", "tcp", port)
	return slices.ContainsFunc(all, func(l listener) bool {
		return l.ip == netip.IPv6Loopback() || l.ip == netip.IPv6Unspecified()
	})
}

type listener struct {
	ip    netip.Addr
	inode string
}

// listeners reads the sockets bound to port from a table such as /proc/net/tcp
// (format: Linux Documentation/networking/proc_net_tcp.rst).
func listeners(table, protocol string, port int) ([]listener, error) {
	f, err := os.Open(table)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseListeners(io.LimitReader(f, 8<<20), protocol, port)
}

func parseListeners(table io.Reader, protocol string, port int) ([]listener, error) {
	const tcpListen = "0A"
	var all []listener
	local := fmt.Appendf(nil, ":%04X ", port) // spares taking every other line apart
	s := bufio.NewScanner(table)
	for s.Scan() {
		if !bytes.Contains(s.Bytes(), local) {
			continue
		}
		fields := strings.Fields(s.Text())
		if len(fields) < 10 || (protocol == "tcp" && fields[3] != tcpListen) {
			continue
		}
		if local, ok := parseLocal(fields[1]); ok && int(local.Port()) == port {
			all = append(all, listener{local.Addr(), fields[9]})
		}
	}
	return all, s.Err()
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
