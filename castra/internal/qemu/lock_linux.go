package qemu

import "golang.org/x/sys/unix"

// setLock takes a lock that belongs to the open file: closing another handle
// on it, as a concurrent look at the pidfile does, leaves it in place.
const setLock = unix.F_OFD_SETLK
