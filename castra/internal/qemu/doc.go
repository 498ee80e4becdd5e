// Package qemu runs QEMU: from a Spec to its command line (pure), which
// accelerator this computer has, the overlay a VM writes to, how one is
// started, whether it is alive, and how it is ended.
//
// A VM is alive while a process holds the lock that QEMU takes on its pidfile.
// Process numbers are never believed by themselves: they are used again.
package qemu
