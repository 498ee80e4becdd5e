//go:build !linux

package qemu

import "golang.org/x/sys/unix"

const setLock = unix.F_SETLK
