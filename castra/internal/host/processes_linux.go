package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// RunsIn tells whether the working directory of a process is dir. Known is
// false where that cannot be seen: the process has ended, may not be looked
// at, or /proc is that of another namespace of processes.
func RunsIn(pid int, dir string) (in, known bool) {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return false, false
	}
	there, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if err != nil {
		return false, false
	}
	st, err := os.Stat(dir)
	return err == nil && os.SameFile(there, st), err == nil
}

// WorkingDirs gives, by process number, the working directory of each process
// of this user whose name begins with prefix (of at most 15 bytes: the kernel
// keeps no more of a name). One that was removed ends in " (deleted)".
func WorkingDirs(prefix string) map[int]string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	dirs := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		name, err := os.ReadFile(filepath.Join(proc, "comm"))
		if err != nil || !strings.HasPrefix(string(name), prefix) {
			continue
		}
		st, err := os.Stat(proc)
		if err != nil {
			continue
		}
		if owner, ok := st.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Getuid() {
			continue
		}
		if dir, err := os.Readlink(filepath.Join(proc, "cwd")); err == nil {
			dirs[pid] = dir
		}
	}
	return dirs
}
