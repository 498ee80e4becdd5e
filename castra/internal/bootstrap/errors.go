package bootstrap

import (
	"errors"
	"fmt"
	"strings"

	"castra.example/castra/castra/internal/guest"
)

// StepError says in which step a VM's bootstrap failed, and why.
type StepError struct {
	VM     string
	Step   string   // "prepare" before anything reached the guest, or the step's name
	Status int      // exit status of the script or of verify_command; 0 where none was had
	Tail   []string // the last 20 lines of output at most
	Log    string   // path of the run's log; "" where none could be written
	Err    error
}

func (e *StepError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "bootstrap %s: %s: %v", e.VM, e.Step, e.Err)
	for _, line := range e.Tail {
		fmt.Fprintf(&b, "\n  | %s", line)
	}
	if e.Log != "" {
		fmt.Fprintf(&b, "\n  log: %s", e.Log)
	}
	return b.String()
}

func (e *StepError) Unwrap() error { return e.Err }

// Hint says what to do next: that of the cause where it has one.
func (e *StepError) Hint() string {
	var hinter interface{ Hint() string }
	var exit *guest.ExitError
	switch {
	case errors.As(e.Err, &hinter):
		return hinter.Hint()
	case e.Step == "apply" && errors.As(e.Err, &exit):
		return "the VM is still running: look around with `mage ssh " + e.VM + "`, correct the script, and run `mage up` again"
	case e.Step == "verify":
		return "the script ran; compare verify_command and verify_path with what it leaves in the guest"
	}
	return ""
}

// LineEndError says that a script has the line ends of Windows.
type LineEndError struct{ Script string }

func (e *LineEndError) Error() string {
	return fmt.Sprintf("script %s: its first line ends with CR LF, which no shell in the guest understands", e.Script)
}

// Hint says what to do next.
func (e *LineEndError) Hint() string {
	return "save it with LF line ends, for example: sed -i 's/\\r$//' " + e.Script
}
