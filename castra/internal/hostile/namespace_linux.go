package hostile

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const envSpace = "CASTRA_TEST_NAMESPACE"

// InNamespace has the test run again in a process with mounts of its own, and
// tells that this is that process. Where there can be none, it is this one, and
// Mounts is false.
func InNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(envSpace) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=20m")
	cmd.Env = append(os.Environ(), envSpace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		if len(out) == 0 {
			t.Logf("no namespace for mounts here: %v", err)
			return true
		}
		t.Fatal(err)
	}
	return false
}

// Mounts tells that this process may mount without anybody seeing it.
func Mounts() bool { return os.Getenv(envSpace) != "" && os.Getuid() == 0 }

// Bind mounts what on at, which is made, and gives how to undo it; nil where it
// cannot be.
func Bind(what, at string) (undo func()) {
	if !Mounts() || os.MkdirAll(at, 0o700) != nil || unix.Mount(what, at, "", unix.MS_BIND, "") != nil {
		return nil
	}
	return func() { _ = unix.Unmount(at, unix.MNT_DETACH) }
}
