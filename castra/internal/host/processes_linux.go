package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

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
