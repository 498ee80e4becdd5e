package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

const reuseEnv = "CASTRA_TEST_PID_REUSE"

// B4: between the look at the pidfile and the signal, the VM dies and its
// number goes to a stranger. It happens in a namespace of processes of the
// test's own, where a number can be forced.
func TestPIDReuseSoak(t *testing.T) {
	asked := soak.N(60, 10_000)
	if os.Getenv(reuseEnv) != "" {
		reusePIDs(t, asked)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPIDReuseSoak$", "-test.v", "-test.timeout=40m")
	cmd.Env = append(os.Environ(), reuseEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if !strings.Contains(string(out), "namespace ready") {
		t.Skipf("no namespace of processes whose numbers can be chosen: %v: %s", err, out)
	}
	require.NoError(t, err, string(out))
	var forced, signals, stuck int
	_, result, _ := strings.Cut(string(out), "reused: ")
	_, err = fmt.Sscan(result, &forced, &signals, &stuck)
	require.NoError(t, err, string(out))
	require.Positive(t, forced)
	soak.AtLeast(t, "B4", "numbers of dead VMs forced on a stranger", float64(asked), float64(forced))
	soak.AtMost(t, "B4", "signals to the stranger", 0, float64(signals))
	soak.AtMost(t, "B4", "commands that took the stranger for the VM", 0, float64(stuck))
}

// reuse is one VM that dies at a moment, and the stranger that gets its number.
type reuse struct {
	t       *testing.T
	dir     string
	pidfile string
	monitor net.Listener

	mu       sync.Mutex // serve is another goroutine
	vm       int
	stranger int
	forced   bool
	when     string // the moment
}

// moments of a shutdown at which the number changes hands. At the last the
// handle has been taken, and the VM is waited for.
var moments = []string{"inspect", "SIGTERM", "SIGKILL", "wait"}

func reusePIDs(t *testing.T, asked int) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skip(err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Skip(err)
	}
	r := &reuse{t: t, dir: os.Getenv(reuseEnv)}
	t.Chdir(r.dir) // so that the stranger, too, runs where the VM does
	r.pidfile = filepath.Join(r.dir, "vm.pid")
	var err error
	r.monitor, err = net.Listen("unix", "vm.qmp")
	require.NoError(t, err)
	go r.serve()
	pid := fork(nil, 300)
	if pid < 0 {
		t.Skip(syscall.Errno(-pid))
	}
	r.end(pid)
	fmt.Println("namespace ready")
	signals, stuck, forced := 0, 0, 0
	for n := 0; forced < asked && n < 2*asked; n++ {
		harm, err := r.once(moments[n%len(moments)])
		if !r.forced {
			continue
		}
		forced++
		signals += len(harm)
		if err != nil || len(harm) > 0 {
			stuck++
			fmt.Println(r.when, harm, err)
		}
	}
	fmt.Println("reused:", forced, signals, stuck)
}

// once takes a VM down that dies meanwhile, and tells what the stranger was
// sent that has its number since.
func (r *reuse) once(when string) (harm []string, err error) {
	r.mu.Lock()
	r.when, r.forced, r.stranger = when, false, 0
	r.vm = fork([]byte(r.pidfile+"\x00"), 0)
	vm := r.vm
	r.mu.Unlock()
	require.Positive(r.t, vm)
	require.Eventually(r.t, func() bool { pid, err := Holder(r.pidfile); return err == nil && pid == vm }, patience, 100*time.Microsecond)
	if when == "wait" {
		err = r.wait(vm)
		return r.harm(), err
	}
	ladder := Ladder{Graceful: time.Millisecond, Terminate: 2 * time.Millisecond, Kill: time.Second}
	target := Target{Name: "vm", Pidfile: r.pidfile, Monitor: filepath.Join(r.dir, "vm.qmp"), UUID: "00000000-0000-0000-0000-000000000001"}
	_, err = Stop(context.Background(), target, ladder, func(e event.Event) {
		if e, ok := e.(event.Escalated); ok && e.Signal == when {
			r.change(when)
		}
	})
	return r.harm(), err
}

// wait waits for the end of the VM through a handle that was taken before.
func (r *reuse) wait(vm int) error {
	proc, err := host.OpenProcess(vm)
	require.NoError(r.t, err)
	defer proc.Release()
	r.change("wait")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(proc.WaitExit(ctx), proc.Signal(syscall.SIGKILL))
}

// harm is what the stranger was sent. What still runs is ended.
func (r *reuse) harm() (harm []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.forced && r.vm != 0:
		r.end(r.vm)
	case r.forced:
		harm, _ = qemutest.Pending(r.stranger)
		if pid, _ := unix.Wait4(r.stranger, nil, unix.WNOHANG, nil); pid != 0 {
			return append(harm, "killed")
		}
		r.end(r.stranger)
	}
	return harm
}

// change ends the VM and gives its number to a stranger, where it is the moment.
func (r *reuse) change(when string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.vm == 0 || r.when != when {
		return
	}
	pid := r.vm
	r.vm = 0
	r.end(pid)
	r.stranger = fork(nil, pid)
	r.forced = r.stranger == pid
}

// serve is the monitor: who asks it has read the pidfile before.
func (r *reuse) serve() {
	for {
		conn, err := r.monitor.Accept()
		if err != nil {
			return
		}
		r.change("inspect")
		conn.Close()
	}
}

// end ends a child and takes it out of the table of processes.
func (r *reuse) end(pid int) {
	require.NoError(r.t, unix.Kill(pid, unix.SIGKILL))
	_, err := unix.Wait4(pid, nil, 0, nil)
	require.NoError(r.t, err)
}

// cloneArgs are those of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// fork makes a child in which all signals are blocked, and which does nothing
// but to hold the lock on a file whose name ends in NUL, if one is given. Pid
// is the number it is to have, 0 for any. It gives the number, or an errno
// below zero. The child is a copy of this process that runs no Go: it makes
// system calls alone.
//
//go:norace
//go:nosplit
func fork(pidfile []byte, pid int) int {
	set := [1]int32{int32(pid)}
	args := cloneArgs{exitSignal: uint64(unix.SIGCHLD)}
	if pid != 0 {
		args.setTID, args.setTIDSize = uint64(uintptr(unsafe.Pointer(&set))), 1
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	all, old := ^uint64(0), uint64(0)
	var path unsafe.Pointer
	if len(pidfile) > 0 {
		path = unsafe.Pointer(&pidfile[0])
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	child, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if child != 0 || errno != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
		if errno != 0 {
			return -int(errno)
		}
		return int(child)
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 3, ^uintptr(0)>>33, 0)
	if path != nil {
		at := unix.AT_FDCWD
		fd, _, _ := syscall.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(path), unix.O_RDWR|unix.O_CREAT, 0o600, 0, 0)
		syscall.RawSyscall(unix.SYS_FCNTL, fd, unix.F_SETLK, uintptr(unsafe.Pointer(&lock)))
	}
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
