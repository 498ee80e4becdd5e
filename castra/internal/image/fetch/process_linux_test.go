package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// unshare lets a child mount file systems that nobody else sees.
func unshare(cmd *exec.Cmd) bool {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return true
}

// fullDiskChild gets a request into a file system of 1 MiB and prints the
// error, which must be of the disk; nothing but what can be resumed may be left.
func fullDiskChild(arg string) int {
	r, err := childRequest(arg)
	if err != nil {
		fmt.Println(err)
		return 2
	}
	dir := filepath.Dir(r.Part)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		fmt.Println("cannot mount:", err)
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = Get(ctx, r)
	var disk *DiskError
	if fmt.Println(err); !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &disk) {
		return 1
	}
	st, statErr := os.Stat(r.Part)
	switch {
	case disk.Have == 0 && errors.Is(statErr, os.ErrNotExist):
		return 0
	case statErr != nil || st.Size() != disk.Have:
		fmt.Println("left:", st, statErr)
		return 1
	}
	if rec, err := readRecord(r.Part); err != nil || rec.Validator == "" {
		fmt.Println("record:", rec, err)
		return 1
	}
	return 0
}
