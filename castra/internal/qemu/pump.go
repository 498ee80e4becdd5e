package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

const (
	// serialLogLimit and qemuLogLimit are how long a log grows before it is set aside: 16 MiB of a VM, and as much of it rotated.
	serialLogLimit = 15 << 20
	qemuLogLimit   = 1 << 20
	pumpBlock      = 512 // bytes, what ulimit -f counts in; 1024 in the sh of macOS
	// drainLimit bounds how long the end of QEMU is kept back until its last words are in its log; that takes 2 ms.
	drainLimit = 5 * time.Second
)

// pumpScript appends its input to the file $1, as it comes, until the input ends. A file of $2 blocks is set aside as $1.1; dd loses
// then what it has in hand, 4 KiB at most. The kernel holds the limit, not the script: it goes for dd also where the shell is killed.
//
// What cannot be written (the disk is full, the directory gone) is read all the same, and dropped: QEMU must not wait. No branch may
// go round without having read, or it would spin.
const pumpScript = `trap '' XFSZ
umask 077
ulimit -f "$2"
until dd bs=4096 >>"$1"; do
	if [ -f "$1" ] && [ "$(wc -c <"$1")" -ge $(($2 * 512)) ] && mv -f "$1" "$1.1"; then continue; fi
	[ "$(dd bs=65536 count=1 | wc -c)" -gt 0 ] || exit
done`

// pump is a shell that carries what QEMU writes into a log, and keeps the log short while no command of Castra runs. It ends by itself
// with the last process that can write to it.
type pump struct {
	in    *os.File // QEMU's end
	ended chan struct{}
}

// startPump makes the log, so that one that cannot be made is told of, and lets a pump write to it.
func startPump(ctx context.Context, log string, limit int) (*pump, error) {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	f.Close()
	return pumpTo(ctx, log, limit)
}

// pumpTo starts the shell. Of this process it gets nothing but the pipe: no lock, no handle, no working directory, and of the environment
// only where its programs may be.
func pumpTo(ctx context.Context, log string, limit int) (*pump, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", log, err)
	}
	defer out.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", "-c", pumpScript, "castra-log", log, strconv.Itoa(limit/pumpBlock))
	cmd.Dir, cmd.Stdin = "/", out
	cmd.Env = []string{"PATH=/usr/bin:/bin:" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("log %s: start what writes it: %w", log, err), in.Close())
	}
	p := &pump{in: in, ended: make(chan struct{})}
	go func() { // ends with QEMU
		_ = cmd.Wait() // how it ended changes nothing
		close(p.ended)
	}()
	return p, nil
}

// drain waits, for a bounded time, until all that QEMU wrote is in the logs.
func drain(pumps ...*pump) {
	limit := time.After(drainLimit)
	for _, p := range pumps {
		select {
		case <-p.ended:
		case <-limit:
			return
		}
	}
}
