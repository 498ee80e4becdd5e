package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qmp"
)

// restoreLimit bounds the loading of the state, which takes 25 to 75 ms here.
const restoreLimit = 10 * time.Second

// Restore loads the state that a QEMU started with Spec.State waits for, lets
// the guest run, and tells its forwards as Forwards does. Memory is a file of
// Save's that goes into a QEMU started with Spec.RAM.Shared; "" where QEMU has
// it already. QEMU ends where the state does not fit.
func Restore(ctx context.Context, t Target, memory string) ([]Forward, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, restoreLimit, fmt.Errorf("QEMU did not load the state within %s", restoreLimit))
	defer cancel()
	mon, err := awaitMonitor(ctx, t)
	if err != nil {
		return nil, err
	}
	defer mon.Close()
	forwards, err := askForwards(ctx, mon)
	if err == nil && memory != "" {
		err = fill(ctx, mon.Peer(), memory)
	}
	if err == nil {
		err = load(ctx, mon)
	}
	return forwards, err
}

func load(ctx context.Context, mon *qmp.Client) error {
	for _, step := range []struct {
		command string
		args    any
	}{
		{"migrate-set-capabilities", memoryFlow},
		// Nobody on QEMU's user network has to be told where the guest is now, and the guest would spend time on telling. With 0
		// rounds QEMU 7.2 crashes when the guest reboots.
		{"migrate-set-parameters", map[string]any{"announce-rounds": 1}},
		{"migrate-incoming", map[string]any{"uri": fmt.Sprintf("fd:%d", stateFD)}},
	} {
		if err := mon.Execute(ctx, step.command, step.args, nil); err != nil {
			return err
		}
	}
	tick := time.NewTicker(savePoll)
	defer tick.Stop()
	for {
		status, err := queryStatus(ctx, mon)
		if err != nil {
			return err
		}
		if status != "inmigrate" {
			return mon.Execute(ctx, "cont", nil, nil)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// fill copies memory that Save wrote into that of the QEMU pid.
func fill(ctx context.Context, pid int, file string) error {
	ram, err := sharedMemory(pid)
	if err != nil {
		return err
	}
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(ram, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(host.CopySparse(ctx, in, out), out.Close()); err != nil {
		return fmt.Errorf("copy %s into the guest's memory: %w", file, err)
	}
	return nil
}
