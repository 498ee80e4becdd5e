//go:build !linux

package qemu

import "errors"

// WarmSystem tells that this system has what memory templates need: memory in a file without a name.
const WarmSystem = false

func sharedMemory(int) (string, error) {
	return "", errors.New("a guest's memory can be saved on Linux only")
}
