package sweep

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const supported = true

// options: threads are followed. New processes are stopped as they are born,
// to be let go.
const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
	unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

// process is the traced one.
type process struct {
	leader  int
	plan    Plan
	output  string
	threads map[int]*thread
	strange map[int]bool // stopped, and not known yet: a thread or a process that was born a moment ago
	result  Result
	full    bool // the disk is full
	dying   bool
}

// thread is one that is followed.
type thread struct {
	call   int // number of the call that it is in; 0 where that is none that counts
	kind   kind
	strike Act
}

// Run runs the program and carries out the plan. It returns when the program
// has ended, all its threads with it.
func Run(c Command, plan Plan) (Result, error) {
	// Every ptrace call, and the wait, must come from the thread that traces.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return Result{}, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	p := &process{plan: plan, threads: map[int]*thread{}, strange: map[int]bool{}}
	if c.Output != nil {
		files[1], files[2], p.output = c.Output.Fd(), c.Output.Fd(), c.Output.Name()
	}
	p.leader, err = syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{
		Dir: c.Dir, Env: c.Env, Files: files, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return Result{}, fmt.Errorf("start %s: %w", c.Path, err)
	}
	err = p.follow()
	if err != nil { // it must not go on untraced
		p.kill()
	}
	return p.result, err
}

func (p *process) kill() {
	if proc, err := os.FindProcess(p.leader); err == nil {
		_ = proc.Kill()
		_ = proc.Release()
	}
	p.dying = true
}

// follow waits for what the threads do until the last of them has ended.
func (p *process) follow() error {
	first := true
	for {
		var ws unix.WaitStatus
		// Without WNOTHREAD, it would take what belongs to others in this program.
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("trace: wait: %w", err)
		}
		switch {
		case !ws.Stopped():
			delete(p.threads, tid)
			if tid == p.leader {
				p.result.Status = syscall.WaitStatus(ws)
				return nil
			}
			continue
		case first && tid == p.leader: // at its exec
			first = false
			p.threads[tid] = &thread{}
			if err := unix.PtraceSetOptions(tid, options); err != nil {
				return fmt.Errorf("trace: %w", err)
			}
			err = unix.PtraceSyscall(tid, 0)
		default:
			err = p.stopped(tid, ws)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it was killed meanwhile
			return fmt.Errorf("trace: %w", err)
		}
	}
}

// stopped deals with a thread that has stopped, and lets it go on.
func (p *process) stopped(tid int, ws unix.WaitStatus) error {
	t, known := p.threads[tid]
	sig := ws.StopSignal()
	switch {
	case !known:
		p.strange[tid] = true
		return nil
	case sig == unix.SIGTRAP|0x80:
		return p.step(tid, t)
	case sig != unix.SIGTRAP:
		return unix.PtraceSyscall(tid, int(sig))
	}
	switch ws.TrapCause() {
	case unix.PTRACE_EVENT_CLONE, unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK:
		return p.born(tid, t, ws.TrapCause() == unix.PTRACE_EVENT_CLONE)
	case 0:
		return unix.PtraceSyscall(tid, int(sig))
	default:
		return unix.PtraceSyscall(tid, 0)
	}
}

// born follows a new thread, and lets a new process go.
func (p *process) born(tid int, t *thread, isThread bool) error {
	msg, err := unix.PtraceGetEventMsg(tid)
	if err != nil {
		return err
	}
	child := int(msg)
	if !p.strange[child] { // its first stop is a moment away
		var ws unix.WaitStatus
		for {
			if _, err = unix.Wait4(child, &ws, unix.WALL|unix.WNOTHREAD, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	delete(p.strange, child)
	if isThread {
		p.threads[child] = &thread{}
		return errors.Join(ignore(unix.PtraceSyscall(child, 0)), unix.PtraceSyscall(tid, 0))
	}
	if t.strike == KillAmid {
		p.kill()
	}
	return errors.Join(ignore(unix.PtraceDetach(child)), unix.PtraceSyscall(tid, 0))
}

// ignore an error that says that the thread has ended.
func ignore(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// info is struct ptrace_syscall_info of linux/ptrace.h.
type info struct {
	op     uint8
	_      [3]uint8
	_      uint32 // architecture
	_, _   uint64 // instruction and stack pointers
	nr     uint64 // or the result
	args   [6]uint64
	_      uint64
	_, _   uint64
	unused [4]uint64
}

const (
	getSyscallInfo = 0x420e
	atEntry        = 1
	atExit         = 2
)

// step deals with the beginning or the end of a call.
func (p *process) step(tid int, t *thread) error {
	var i info
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(i), uintptr(unsafe.Pointer(&i)), 0, 0); errno != 0 { //nolint:gosec // as ptrace wants it
		return errno
	}
	var err error
	switch {
	case p.dying:
	case i.op == atEntry:
		err = p.enter(tid, t, i)
	case i.op == atExit && t.call > 0:
		err = p.leave(tid, t, int64(i.nr))
	}
	return errors.Join(err, unix.PtraceSyscall(tid, 0))
}

func (p *process) enter(tid int, t *thread, i info) error {
	*t = thread{}
	k, known := calls[i.nr]
	if !known {
		return nil
	}
	c, counted := k.read(p, i.args)
	if !counted {
		return nil
	}
	c.Name, c.Room = k.name, k.room
	p.result.Calls = append(p.result.Calls, c)
	t.call, t.kind = len(p.result.Calls), k
	if t.call == p.plan.At {
		t.strike = p.plan.Do
		p.result.Struck = &c
		p.full = t.strike == FailOn
	} else if p.full && k.room {
		t.strike = Fail
	}
	switch t.strike {
	case KillBefore:
		p.kill()
		return p.skip(tid)
	case Fail, FailOn:
		return p.skip(tid)
	case KillAmid:
		return p.halve(tid, k, i.args)
	default:
		return nil
	}
}

// skip makes the call none.
func (p *process) skip(tid int) error {
	return change(tid, func(r *unix.PtraceRegs) { r.Orig_rax = ^uint64(0) })
}

// halve lets a write write half of it.
func (p *process) halve(tid int, k kind, args [6]uint64) error {
	if (k.name == "write" || k.name == "pwrite64") && args[2] > 1 {
		return change(tid, func(r *unix.PtraceRegs) { r.Rdx = args[2] / 2 })
	}
	return nil
}

func (p *process) leave(tid int, t *thread, result int64) error {
	c := &p.result.Calls[t.call-1]
	c.Returned = true
	if result < 0 && result > -4096 {
		c.Err = syscall.Errno(-result)
	}
	switch t.strike {
	case KillAfter, KillAmid:
		p.kill()
	case Fail, FailOn:
		c.Err = p.plan.Errno
		return change(tid, func(r *unix.PtraceRegs) { r.Rax = uint64(-int64(p.plan.Errno)) })
	}
	t.call = 0
	return nil
}

func change(tid int, f func(*unix.PtraceRegs)) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	f(&r)
	return unix.PtraceSetRegs(tid, &r)
}
