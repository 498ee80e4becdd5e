package report

import "castra.example/castra/castra/event"

// pace thins Waiting, which comes every second, where each would be a line. It
// holds what was told last, in milliseconds since the wait began.
type pace map[waitKey]int64

type waitKey struct{ workspace, vm, what string }

// due tells whether it is time for a line: after 5 seconds and then every 5;
// if patient, every 15 after half a minute.
func (p pace) due(workspace string, e event.Waiting, patient bool) bool {
	key := waitKey{workspace, e.VM, e.For}
	if e.ElapsedMS < p[key] {
		p[key] = 0 // another wait for the same
	}
	gap := int64(4500) // ticks are not exact
	if patient && p[key] > 29_500 {
		gap = 14_500
	}
	if e.ElapsedMS-p[key] < gap {
		return false
	}
	p[key] = e.ElapsedMS
	return true
}
