package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qmp"
)

const (
	// saveLimit bounds the whole of Save; the small guest takes 0.1 s, a guest that uses gigabytes some seconds.
	saveLimit = time.Minute
	savePoll  = 2 * time.Millisecond
	// stateLimit bounds the devices' state, 0.5 MB here. A QEMU that sends more sends memory too.
	stateLimit = 64 << 20
	stateFD    = SerialFD + 1 // where Start puts Spec.State
)

// Image is where Save puts a guest. RAM and State are "" for its disk alone.
type Image struct{ Disk, RAM, State string }

// PausedError says: the guest was stopped to be saved and could not be let go on.
type PausedError struct {
	Name string
	Err  error
}

func (e *PausedError) Error() string {
	return fmt.Sprintf("the guest was stopped to be saved, and does not go on: %v", e.Err)
}
func (e *PausedError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *PausedError) Hint() string { return "mage down, then mage up; CASTRA_WARM=0 saves nothing" }

// memoryFlow is what makes QEMU leave out of its stream the memory that is in a file already.
var memoryFlow = map[string]any{"capabilities": []any{map[string]any{"capability": "x-ignore-shared", "state": true}}}

// Save copies a running guest: its overlay, and with Spec.RAM.Shared its
// memory and the state of its devices. The guest stands still meanwhile and
// goes on afterwards, also when saving failed. The files must not exist; after
// a failure those that were made are the caller's to remove. A guest that
// could not be let go on is a *PausedError.
//
// It fails before the guest is stopped where the disk would be left with less
// than room bytes.
func Save(ctx context.Context, t Target, overlay string, to Image, room uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, saveLimit, fmt.Errorf("saving the guest took over %s", saveLimit))
	defer cancel()
	mon, err := openMonitor(ctx, t)
	if err != nil {
		return err
	}
	defer mon.Close()
	ram := ""
	if to.RAM != "" {
		if ram, err = sharedMemory(mon.Peer()); err != nil {
			return err
		}
	}
	if err := checkRoom(filepath.Dir(to.Disk), room, overlay, ram); err != nil {
		return err
	}
	if err := mon.Execute(ctx, "stop", nil, nil); err != nil {
		return errors.Join(err, goOn(ctx, mon, t))
	}
	if to.RAM != "" {
		err = saveMemory(ctx, mon, ram, to)
	}
	if err == nil { // what the guest has written is in the file: QEMU flushes when it stops
		err = copySparse(ctx, overlay, to.Disk)
	}
	return errors.Join(err, goOn(ctx, mon, t))
}

// Continue lets a guest run on that was stopped.
func Continue(ctx context.Context, t Target) error { return tell(ctx, t, 0, "cont") }

// goOn lets the guest run on, also after a cancel.
func goOn(ctx context.Context, mon *qmp.Client, t Target) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), monitorLimit)
	defer cancel()
	err := mon.Execute(ctx, "cont", nil, nil)
	if err != nil { // the connection may be what failed
		again, dialErr := openMonitor(ctx, t)
		if dialErr != nil {
			return &PausedError{t.Name, errors.Join(err, dialErr)}
		}
		defer again.Close()
		err = again.Execute(ctx, "cont", nil, nil)
	}
	if err != nil {
		return &PausedError{t.Name, err}
	}
	return nil
}

// checkRoom tells whether copies of files fit.
func checkRoom(dir string, room uint64, files ...string) error {
	need := room
	for _, file := range files {
		if file == "" {
			continue
		}
		st, err := os.Stat(file)
		if err != nil {
			return err
		}
		need += uint64(host.DiskUsage(st)) //nolint:gosec // a file's blocks are never negative
	}
	free, err := host.FreeDisk(dir)
	if err == nil && free < need {
		err = &RoomError{dir, need, free}
	}
	return err
}

// RoomError says: the disk is too full to save a guest.
type RoomError struct {
	Dir        string
	Need, Free uint64 // bytes
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("%s: %d MiB are free, and %d MiB are needed", e.Dir, e.Free>>20, e.Need>>20)
}
func (e *RoomError) Unwrap() error { return syscall.ENOSPC }

// Hint says what to do next.
func (e *RoomError) Hint() string {
	return "make room there (mage prune -templates), or set CASTRA_HOME to a directory on another disk"
}

func saveMemory(ctx context.Context, mon *qmp.Client, ram string, to Image) error {
	if err := mon.Execute(ctx, "migrate-set-capabilities", memoryFlow, nil); err != nil {
		return err
	}
	if err := saveState(ctx, mon, to.State); err != nil {
		_ = mon.Execute(context.WithoutCancel(ctx), "migrate_cancel", nil, nil) // what failed tells more
		return err
	}
	return copySparse(ctx, ram, to.RAM)
}

// saveState takes QEMU's migration stream over a socket beside the file. The
// paths go through /proc, since that of a socket may have 107 bytes at most.
func saveState(ctx context.Context, mon *qmp.Client, file string) error {
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(file) + ".sock"
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)})
	if err != nil {
		return err
	}
	closing := func() { _ = listener.Close() } // removes the socket; the second time there is nothing to close
	defer closing()
	stop := context.AfterFunc(ctx, closing)
	defer stop()
	taken := make(chan error, 1)
	go func() { taken <- take(ctx, listener, file) }() // ends with the listener or ctx
	uri := fmt.Sprintf("unix:/proc/%d/fd/%d/%s", os.Getpid(), dir.Fd(), name)
	err = mon.Execute(ctx, "migrate", map[string]any{"uri": uri}, nil)
	if err == nil {
		err = awaitMigration(ctx, mon)
	}
	if err != nil {
		closing()
		<-taken //nolint:errcheck // it ended because of err
		return err
	}
	select {
	case err := <-taken:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take writes to file what the one who connects sends until it closes.
func take(ctx context.Context, listener *net.UnixListener, file string) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(conn, stateLimit))
	if err == nil && n == stateLimit {
		err = fmt.Errorf("QEMU sends more than %d MiB as the state of its devices", stateLimit>>20)
	}
	return errors.Join(err, out.Close())
}

func awaitMigration(ctx context.Context, mon *qmp.Client) error {
	tick := time.NewTicker(savePoll)
	defer tick.Stop()
	for {
		var now struct {
			Status string
			Error  string `json:"error-desc"`
		}
		if err := mon.Execute(ctx, "query-migrate", nil, &now); err != nil {
			return err
		}
		switch now.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU's migration %s: %s", now.Status, now.Error)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
