package small

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// HostError says that this host cannot build the small guest, and what it lacks.
type HostError struct {
	Missing []string // programs that are not there
	// Packages are those that the package lists of System do not have for Arch; of alternatives all names.
	Packages []string
	System   string
	Arch     string // alone: the architecture that there is no small guest for, or that none can be built on
}

func (e *HostError) Error() string {
	switch {
	case len(e.Packages) > 0:
		return fmt.Sprintf("the package lists of %s have no %s for %s", e.System, strings.Join(e.Packages, ", no "), e.Arch)
	case len(e.Missing) > 0:
		return "not found on this host: " + strings.Join(e.Missing, ", ")
	}
	return "there is no small guest for or on " + e.Arch + ", only for and on amd64 and arm64"
}

// Hint says what to do instead.
func (e *HostError) Hint() string {
	switch {
	case len(e.Packages) > 0 && e.Arch != runtime.GOARCH:
		return "add a package source that has them for " + e.Arch + " (Debian's main has; Ubuntu keeps arm64 at ports.ubuntu.com), or set base_image to a disk image"
	case len(e.Packages) > 0:
		return "add a package source that has them (Debian: main; Ubuntu: main and universe), or set base_image to a disk image"
	case len(e.Missing) == 1 && e.Missing[0] == "qemu-img":
		return "install it: sudo apt-get install qemu-utils"
	}
	return "the small guest is built from packages on an amd64 or arm64 Debian or Ubuntu; on other hosts set base_image to a disk image"
}

// CommandError is a program of the host that did not do its part.
type CommandError struct {
	Command string // program and first arguments
	Output  string // the last lines it wrote to stderr
	Err     error
}

func (e *CommandError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("%s: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", e.Command, e.Err, e.Output)
}

func (e *CommandError) Unwrap() error { return e.Err }

// Hint says what to look at where packages could not be had.
func (e *CommandError) Hint() string {
	if !strings.HasPrefix(e.Command, "apt-") {
		return ""
	}
	return "apt must reach this host's package sources (main of a Debian release, main and universe of an Ubuntu one): try `apt-get update`, or look at /etc/apt/sources.list.d"
}

// tools are the absolute paths of the host's programs. The e2fsprogs are "" where the host has none.
type tools struct {
	aptGet, aptCache, dpkgDeb, qemuImg string
	mke2fs, debugfs                    string
}

func findTools() (tools, error) {
	if _, ok := targetFor(runtime.GOARCH); !ok {
		return tools{}, &HostError{Arch: runtime.GOARCH}
	}
	var t tools
	var missing []string
	for _, want := range []struct {
		name string
		to   *string
	}{{"apt-get", &t.aptGet}, {"apt-cache", &t.aptCache}, {"dpkg-deb", &t.dpkgDeb}, {"qemu-img", &t.qemuImg}} {
		path, err := exec.LookPath(want.name)
		if err != nil && !errors.Is(err, exec.ErrDot) {
			missing = append(missing, want.name)
		}
		*want.to = path
	}
	if len(missing) > 0 {
		return tools{}, &HostError{Missing: missing}
	}
	t.mke2fs, t.debugfs = lookSystem("mke2fs"), lookSystem("debugfs")
	return t, nil
}

// lookSystem also looks where an ordinary user's PATH does not.
func lookSystem(name string) string {
	for _, file := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(file); err == nil {
			return path
		}
	}
	return ""
}

// command is one run of a program. Its output is small, but for what goes to pipe.
type command struct {
	path string
	args []string
	dir  string
	env  []string // added to this process's
	in   []byte
}

// killWait bounds how long a cancelled program's children may hold its pipes open.
const killWait = 2 * time.Second

func (c command) prepare(ctx context.Context, stderr *bytes.Buffer) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Dir = c.dir
	cmd.WaitDelay = killWait
	// One clock and one language for all, so that the same packages give the same disk and messages can be read.
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "TZ=UTC", "SOURCE_DATE_EPOCH="+epochText, "E2FSPROGS_FAKE_TIME="+epochText)
	cmd.Env = append(cmd.Env, c.env...)
	cmd.Stderr = stderr
	if c.in != nil {
		cmd.Stdin = bytes.NewReader(c.in)
	}
	return cmd
}

func (c command) run(ctx context.Context) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := c.prepare(ctx, &stderr)
	cmd.Stdout = &stdout
	err := cmd.Run()
	if err != nil {
		return nil, c.failed(ctx, err, &stderr)
	}
	return stdout.Bytes(), nil
}

func (c command) failed(ctx context.Context, err error, stderr *bytes.Buffer) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	name := strings.Join(append([]string{filepath.Base(c.path)}, c.args...), " ")
	if len(name) > 80 {
		name = name[:80] + "..."
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	return &CommandError{Command: name, Output: strings.Join(lines[max(0, len(lines)-4):], "; "), Err: err}
}
