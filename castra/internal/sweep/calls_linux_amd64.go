package sweep

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kind is how the arguments of a call are read.
type kind struct {
	name string
	// read gives the call; counted is false where this one changes nothing.
	read func(p *process, args [6]uint64) (c Call, counted bool)
	// room tells that the call fails on a full disk.
	room bool
}

// calls are those that may change something.
var calls = map[uint64]kind{
	unix.SYS_OPEN:              {"open", func(p *process, a [6]uint64) (Call, bool) { return p.open(unix.AT_FDCWD, a[0], a[1]) }, true},
	unix.SYS_CREAT:             {"creat", onPath(0), true},
	unix.SYS_OPENAT:            {"openat", func(p *process, a [6]uint64) (Call, bool) { return p.open(int(int32(a[0])), a[1], a[2]) }, true},
	unix.SYS_WRITE:             {"write", onFD(0), true},
	unix.SYS_PWRITE64:          {"pwrite64", onFD(0), true},
	unix.SYS_WRITEV:            {"writev", onFD(0), true},
	unix.SYS_PWRITEV:           {"pwritev", onFD(0), true},
	unix.SYS_SENDFILE:          {"sendfile", onFD(0), true},
	unix.SYS_COPY_FILE_RANGE:   {"copy_file_range", onFD(2), true},
	unix.SYS_SPLICE:            {"splice", onFD(2), true},
	unix.SYS_FTRUNCATE:         {"ftruncate", onFD(0), true},
	unix.SYS_FALLOCATE:         {"fallocate", onFD(0), true},
	unix.SYS_FSYNC:             {"fsync", onFD(0), true},
	unix.SYS_FDATASYNC:         {"fdatasync", onFD(0), true},
	unix.SYS_FCHMOD:            {"fchmod", onFD(0), false},
	unix.SYS_TRUNCATE:          {"truncate", onPath(0), true},
	unix.SYS_CHMOD:             {"chmod", onPath(0), false},
	unix.SYS_FCHMODAT:          {"fchmodat", at(0, 1), false},
	unix.SYS_FCHMODAT2:         {"fchmodat2", at(0, 1), false},
	unix.SYS_UTIMENSAT:         {"utimensat", at(0, 1), false},
	unix.SYS_MKDIR:             {"mkdir", onPath(0), true},
	unix.SYS_MKDIRAT:           {"mkdirat", at(0, 1), true},
	unix.SYS_RMDIR:             {"rmdir", onPath(0), false},
	unix.SYS_UNLINK:            {"unlink", onPath(0), false},
	unix.SYS_UNLINKAT:          {"unlinkat", at(0, 1), false},
	unix.SYS_RENAME:            {"rename", two(-1, 0, -1, 1), true},
	unix.SYS_RENAMEAT:          {"renameat", two(0, 1, 2, 3), true},
	unix.SYS_RENAMEAT2:         {"renameat2", two(0, 1, 2, 3), true},
	unix.SYS_LINK:              {"link", two(-1, 0, -1, 1), true},
	unix.SYS_LINKAT:            {"linkat", two(0, 1, 2, 3), true},
	unix.SYS_SYMLINK:           {"symlink", onPath(1), true},
	unix.SYS_SYMLINKAT:         {"symlinkat", at(1, 2), true},
	unix.SYS_CLONE:             {"clone", func(_ *process, a [6]uint64) (Call, bool) { return Call{}, a[0]&unix.CLONE_THREAD == 0 }, false},
	unix.SYS_CLONE3:            {"clone3", func(p *process, a [6]uint64) (Call, bool) { return Call{}, p.number(a[0])&unix.CLONE_THREAD == 0 }, false},
	unix.SYS_FORK:              {"fork", always, false},
	unix.SYS_VFORK:             {"vfork", always, false},
	unix.SYS_EXECVE:            {"execve", always, false},
	unix.SYS_KILL:              {"kill", func(p *process, a [6]uint64) (Call, bool) { return Call{}, p.signals(a[0], a[1]) }, false},
	unix.SYS_TGKILL:            {"tgkill", func(p *process, a [6]uint64) (Call, bool) { return Call{}, p.signals(a[0], a[2]) }, false},
	unix.SYS_PIDFD_SEND_SIGNAL: {"pidfd_send_signal", func(p *process, a [6]uint64) (Call, bool) { return Call{}, int32(a[1]) != 0 }, false},
}

func always(*process, [6]uint64) (Call, bool) { return Call{}, true }

// onFD is a call on the open file that argument n is. Pipes, sockets and
// devices change nothing that stays.
func onFD(n int) func(*process, [6]uint64) (Call, bool) {
	return func(p *process, a [6]uint64) (Call, bool) {
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.leader, int32(a[n])))
		return Call{Path: path}, err == nil && p.stays(path)
	}
}

func onPath(n int) func(*process, [6]uint64) (Call, bool) {
	return func(p *process, a [6]uint64) (Call, bool) { return p.named(unix.AT_FDCWD, a[n]) }
}

func at(dir, name int) func(*process, [6]uint64) (Call, bool) {
	return func(p *process, a [6]uint64) (Call, bool) { return p.named(int(int32(a[dir])), a[name]) }
}

// two is a call with an old name and a new one; a directory of -1 is the working directory.
func two(fromDir, from, toDir, to int) func(*process, [6]uint64) (Call, bool) {
	return func(p *process, a [6]uint64) (Call, bool) {
		dir := func(n int) int {
			if n < 0 {
				return unix.AT_FDCWD
			}
			return int(int32(a[n]))
		}
		c := Call{Path: p.path(dir(fromDir), a[from]), To: p.path(dir(toDir), a[to])}
		return c, p.stays(c.To)
	}
}

func (p *process) named(dir int, name uint64) (Call, bool) {
	path := p.path(dir, name)
	return Call{Path: path}, p.stays(path)
}

// open changes something where it makes, empties, or is to write.
func (p *process) open(dir int, name, flags uint64) (Call, bool) {
	if flags&(unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_RDWR) == 0 {
		return Call{}, false
	}
	return p.named(dir, name)
}

// stays tells that the file is one that outlives the process.
func (p *process) stays(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/proc/") && !strings.HasPrefix(path, "/dev/") &&
		!strings.HasPrefix(path, "/sys/") && path != p.output
}

// signals tells that a signal goes to another process: the Go runtime sends
// some to its own threads.
func (p *process) signals(pid, sig uint64) bool {
	return int(int32(pid)) != p.leader && int32(sig) != 0
}

// path is the name at addr in the process's memory, made absolute.
func (p *process) path(dir int, addr uint64) string {
	name := p.text(addr)
	if filepath.IsAbs(name) {
		return name
	}
	link := fmt.Sprintf("/proc/%d/cwd", p.leader)
	if dir != unix.AT_FDCWD {
		link = fmt.Sprintf("/proc/%d/fd/%d", p.leader, dir)
	}
	base, _ := os.Readlink(link)
	return filepath.Join(base, name)
}

// text is the string at addr in the process's memory.
func (p *process) text(addr uint64) string {
	var all []byte
	for len(all) < unix.PathMax {
		part := make([]byte, 256-addr%256) // never over the end of a page
		n, err := p.peek(addr, part)
		part = part[:n]
		if end := bytes.IndexByte(part, 0); end >= 0 {
			return string(append(all, part[:end]...))
		}
		if err != nil || n == 0 {
			break
		}
		all, addr = append(all, part...), addr+uint64(n)
	}
	return string(all)
}

func (p *process) number(addr uint64) uint64 {
	b := make([]byte, 8)
	if n, _ := p.peek(addr, b); n < len(b) {
		return 0
	}
	return binary.NativeEndian.Uint64(b)
}

func (p *process) peek(addr uint64, b []byte) (int, error) {
	return unix.ProcessVMReadv(p.leader, []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}},
		[]unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
}
