// Package qmp talks to one QEMU process over its monitor socket (QMP, the
// QEMU Machine Protocol).
//
//	c, err := qmp.Dial(ctx, "/state/web-0.qmp")
//	if err != nil { ... }
//	defer c.Close()
//	err = c.Execute(ctx, "system_powerdown", nil, nil)
//
// QEMU serves one monitor client at a time, so hold a Client briefly. A socket
// path proves nothing about who answers: compare [Client.Peer] with the pid
// that holds the VM's pidfile, and query-uuid with the VM's UUID.
//
// The protocol itself is spoken by go-qemu's SocketMonitor. It has no
// deadlines, takes an event for a reply during its handshake, stops for good
// on an unread event or a line over 64 KiB, and forgets error classes.
// So it never touches QEMU's socket: it gets a private in-process connection,
// and a relay passes on exactly one reply for each command.
package qmp
