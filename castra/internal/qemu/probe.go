package qemu

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// probeLimit bounds a question to a program of QEMU, which answers in some 20 ms.
const probeLimit = 5 * time.Second

// outputLimit bounds what is kept of a program's output, in bytes.
const outputLimit = 4 << 10

// oldest is the first version whose -device takes JSON.
var oldest = [2]int{6, 2}

// OldVersionError says: this QEMU does not know the options that Castra uses.
type OldVersionError struct{ Tool, Version string }

func (e *OldVersionError) Error() string {
	return fmt.Sprintf("%s: version %s, and Castra needs %d.%d", e.Tool, e.Version, oldest[0], oldest[1])
}

// Hint says what to do next.
func (e *OldVersionError) Hint() string {
	return "take QEMU from a newer release of your system, or from its backports"
}

var versionWord = regexp.MustCompile(`version ((\d+)\.(\d+)[0-9.]*)`)

// Version asks QEMU, the program or qemu-img, for its version: "7.2.22". One
// that is too old for Castra is an *OldVersionError beside its version.
func Version(ctx context.Context, tool string) (string, error) {
	out, err := ask(ctx, tool, "--version")
	if err != nil {
		return "", err
	}
	m := versionWord.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s --version: %.80q tells no version", tool, out)
	}
	major, _ := strconv.Atoi(m[2])
	minor, _ := strconv.Atoi(m[3])
	if major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		return m[1], &OldVersionError{tool, m[1]}
	}
	return m[1], nil
}

// ask runs a program that answers at once and gives the start of its output.
func ask(ctx context.Context, tool string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeLimit, fmt.Errorf("no answer within %s", probeLimit))
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.WaitDelay = time.Second
	var out, stderr bounded
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return "", &ToolError{tool, args, err, stderr.String()}
	}
	return out.String(), nil
}

// ToolError says: a program that Castra runs ended in failure.
type ToolError struct {
	Tool   string
	Args   []string
	Err    error
	Stderr string
}

func (e *ToolError) Error() string {
	s := fmt.Sprintf("%s %s: %v", e.Tool, strings.Join(e.Args, " "), e.Err)
	if e.Stderr != "" {
		s += ": " + e.Stderr
	}
	return s
}
func (e *ToolError) Unwrap() error { return e.Err }

// bounded keeps the first bytes written to it and drops the rest. It has no
// other method of a buffer: os/exec would rather use ReadFrom, which has no
// bound.
type bounded struct{ kept []byte }

func (b *bounded) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(outputLimit-len(b.kept), len(p))]...)
	return len(p), nil
}

func (b *bounded) String() string { return strings.TrimSpace(string(b.kept)) }
