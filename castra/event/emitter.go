package event

import (
	"fmt"
	"sync"
	"time"
)

// Reporter hears what happens. Report is called serially, so it needs no lock
// of its own; it must not emit, and should return soon, because work waits for it.
type Reporter interface {
	Report(Record)
}

// Emitter hands events to reporters, one at a time and in order. A nil
// *Emitter is silent.
type Emitter struct {
	workspace string
	now       func() time.Time

	mu        sync.Mutex
	reporters []Reporter
}

// NewEmitter returns an Emitter for one workspace. A nil now is time.Now; nil
// reporters are left out.
func NewEmitter(workspace string, now func() time.Time, rs ...Reporter) *Emitter {
	if now == nil {
		now = time.Now
	}
	e := &Emitter{workspace: workspace, now: now}
	for _, r := range rs {
		if r != nil {
			e.reporters = append(e.reporters, r)
		}
	}
	return e
}

// Emit stamps the event and hands it to every reporter. It is safe for
// concurrent use. A reporter that panics is not called again, and the others
// are told: reporting must never stop the work it tells about.
func (e *Emitter) Emit(ev Event) {
	if e == nil || ev == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deliver(ev)
}

func (e *Emitter) deliver(ev Event) {
	record := Record{Time: e.now(), Workspace: e.workspace, Event: ev}
	var alive []Reporter
	var broken []any
	for _, r := range e.reporters {
		if cause := try(r, record); cause != nil {
			broken = append(broken, cause)
			continue
		}
		alive = append(alive, r)
	}
	e.reporters = alive
	for _, cause := range broken {
		e.deliver(Message{Level: "warning", Text: fmt.Sprintf("a reporter was dropped: it panicked: %v", cause)})
	}
}

// try reports one record and returns what the reporter panicked with.
func try(r Reporter, record Record) (cause any) {
	defer func() { cause = recover() }()
	r.Report(record)
	return nil
}
