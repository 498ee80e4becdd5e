package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// restoreLimit bounds the loading of the state, which takes 25 to 75 ms here.
const restoreLimit = 10 * time.Second

// Restore loads the state that a QEMU started with Spec.State waits for, and
// lets the guest run. QEMU ends where the state does not fit.
func Restore(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeoutCause(ctx, restoreLimit, fmt.Errorf("QEMU did not load the state within %s", restoreLimit))
	defer cancel()
	mon, err := awaitMonitor(ctx, t)
	if err != nil {
		return err
	}
	defer mon.Close()
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

// FillMemory puts memory that Save wrote into a QEMU that has been started with Spec.RAM.Shared and Spec.State, before Restore.
func FillMemory(ctx context.Context, t Target, file string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, restoreLimit, fmt.Errorf("the memory was not copied within %s", restoreLimit))
	defer cancel()
	mon, err := awaitMonitor(ctx, t)
	if err != nil {
		return err
	}
	defer mon.Close()
	ram, err := sharedMemory(mon.Peer())
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
	if err := errors.Join(copyData(ctx, in, out), out.Close()); err != nil {
		return fmt.Errorf("copy %s into the guest's memory: %w", file, err)
	}
	return nil
}
