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
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootID names this boot of the computer; "" where unknown. A process number
// recorded under another boot ID means nothing.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// AvailableMemory is the memory in bytes that new processes can use without
// swapping (MemAvailable of /proc/meminfo).
func AvailableMemory() (uint64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) >= 2 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/meminfo: no MemAvailable line")
}

// WaitExit returns when the process has ended (a zombie has), or with ctx's
// error. The wait goes through a pidfd, so it ends within the same
// millisecond and for processes that are not our children too.
func (p *Process) WaitExit(ctx context.Context) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return p.pollExit(ctx)
	}
	defer unix.Close(fd)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Short turns, so that a cancelled ctx is seen.
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(50*time.Millisecond/time.Millisecond)); n > 0 {
			return nil
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			return p.pollExit(ctx)
		}
	}
}

// ended tells that no process with this PID runs; a zombie has ended. While
// other threads than the first live, so do the files and locks of a process
// whose state is that of a zombie already.
func ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	// The command name may hold spaces and parentheses: the state follows the last one.
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	fields := bytes.Fields(rest)
	if len(fields) == 0 || fields[0][0] != 'Z' && fields[0][0] != 'X' {
		return false
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err != nil || len(threads) <= 1
}

// PortOwner names the process that listens on a port of this computer, as
// "pid 123 (nginx)"; "" when nobody does or it cannot be told (another user's
// process). Protocol is "tcp" or "udp"; ip may be unspecified.
func PortOwner(protocol string, port int) string {
	inodes := map[string]bool{}
	for _, suffix := range []string{"", "6"} {
		for _, inode := range listeners("/proc/net/"+protocol+suffix, protocol, port) {
			inodes["socket:["+inode+"]"] = true
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

// listeners reads the inodes of the sockets bound to port from a table such
// as /proc/net/tcp (format: Linux Documentation/networking/proc_net_tcp.rst).
func listeners(table, protocol string, port int) []string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	const tcpListen = "0A"
	var inodes []string
	for s := bufio.NewScanner(io.LimitReader(f, 8<<20)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 10 || (protocol == "tcp" && fields[3] != tcpListen) {
			continue
		}
		if local, ok := parseLocal(fields[1]); ok && int(local.Port()) == port {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
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
