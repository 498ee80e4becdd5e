package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// WarmSystem tells that this system has what memory templates need: memory in a file without a name.
const WarmSystem = true

// memfdLink is what the file of QEMU's memory-backend-memfd is called in /proc.
const memfdLink = "/memfd:memory-backend-memfd (deleted)"

// sharedMemory is the path that leads to the memory of the guest of the QEMU pid.
func sharedMemory(pid int) (string, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if link, err := os.Readlink(path); err == nil && link == memfdLink {
			return path, nil
		}
	}
	return "", fmt.Errorf("QEMU (pid %d) keeps the guest's memory to itself", pid)
}
