package castra

import (
	"context"
	"slices"

	"castra.example/castra/castra/internal/qemu"
)

// saving notes that the guest is about to be stopped, or runs again.
func (u *upRun) saving(vm string, now bool) error {
	r, _ := u.session.get(vm)
	r.Start.Saving = now
	return u.session.put(r)
}

var halfWay = []string{"paused", "prelaunch", "inmigrate", "finish-migrate", "postmigrate", "restore-vm", "save-vm"}

// mend ends what an up that was killed has restored half, and lets go on what it had stopped to save. It tells how the VM does then.
func (u *upRun) mend(ctx context.Context, vm string, s qemu.State) (qemu.State, error) {
	if s.Alive() { // a down that was killed may have left it
		u.ending(vm, false)
	}
	r, known := u.session.get(vm)
	t := target(u.ws.Layout, vm, r)
	switch {
	case !known || !s.Alive():
		return s, nil
	case r.Ready.IsZero() && r.Start.Kind == startRAM:
		_, err := u.takeDown(ctx, vm, rollbackLadder, "an up that was killed had restored it half")
		return qemu.Inspect(ctx, t), err
	case r.Start.Saving && slices.Contains(halfWay, s.Status):
		if err := qemu.Continue(ctx, t); err != nil {
			return s, err
		}
		return qemu.Inspect(ctx, t), u.saving(vm, false)
	case r.Start.Saving && s.Status == "running":
		return s, u.saving(vm, false)
	default:
		return s, nil
	}
}
