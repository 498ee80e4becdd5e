// Package sweep runs a program and kills it, or lets a system call fail, at
// exactly the Nth of its system calls that change something: files, processes
// or signals. It counts over all threads, in the order in which the calls
// begin. Only tests import it.
//
// It is a small tracer (ptrace) of one program: the processes that this starts
// run untraced, so a QEMU outlives the command that launched it. strace counts
// for each thread alone, which tells nothing of a Go program.
package sweep

import (
	"fmt"
	"os"
	"syscall"
)

// Command is the program to run.
type Command struct {
	Path string
	Args []string // with the name of the program
	Env  []string
	Dir  string
	// Output takes what the program prints. What it writes there is not counted.
	Output *os.File
}

// Call is one system call that changes something.
type Call struct {
	Name string
	// Path is the file; of a rename or a link that which there was.
	Path string
	// To is the new name of a rename or a link.
	To string
	// Room tells that a full disk can make it fail.
	Room bool
	// Returned tells that the end of the call was seen, and Err how it ended; 0 is well.
	Returned bool
	Err      syscall.Errno
}

func (c Call) String() string {
	s := c.Name
	for _, word := range []string{c.Path, c.To} {
		if word != "" {
			s += " " + word
		}
	}
	if c.Err != 0 {
		s += fmt.Sprintf(" (%v)", c.Err)
	}
	return s
}

// OnFile tells that the call is about a file, and not about a process.
func (c Call) OnFile() bool { return c.Path != "" }

// Act is what is done at a call.
type Act string

// Acts.
const (
	Watch      Act = "watch"       // nothing
	KillBefore Act = "kill before" // the call is not made any more
	KillAfter  Act = "kill after"
	KillAmid   Act = "kill amid" // of a write half is written; of the start of a process, this has yet to become the new program
	Fail       Act = "fail"      // the call fails with Errno and does nothing
	FailOn     Act = "fail on"   // so do all from then on that need room on the disk
)

// Plan is what to do, and when.
type Plan struct {
	At    int // number of the call, from 1
	Do    Act
	Errno syscall.Errno
}

// Result is what was seen of the program.
type Result struct {
	Calls []Call
	// Struck is the call at which the plan was carried out; nil where the
	// program ended before.
	Struck *Call
	Status syscall.WaitStatus
}

// Supported tells that this computer can do it; Run fails where it is not.
const Supported = supported
