package castra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/logs"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/workspace"
)

// BusOptions say what Bus writes. The zero value is the session and the last 20
// events, as text.
type BusOptions struct {
	JSON   bool // JSON lines: the session, then the events as events.jsonl has them
	Tail   int  // events; 0 is 20, less than 0 none
	Follow bool // go on with what happens, until ctx ends
}

const defaultEvents = 20

// Bus writes the workspace's session, which is what runs and how to reach it,
// and its stream of events. It takes no lock and writes nothing to disk.
func (p *Project) Bus(ctx context.Context, o BusOptions, w io.Writer) error {
	if o.Tail == 0 {
		o.Tail = defaultEvents
	}
	b := &bus{w: w, json: o.JSON}
	if err := p.writeSession(b); err != nil {
		return err
	}
	journal := p.layout().EventLog()
	if o.Follow {
		err := logs.Follow(ctx, func() []logs.File { return []logs.File{{Path: journal}} }, o.Tail, b.event)
		return errors.Join(b.err, err)
	}
	lines, err := logs.Tail(journal, max(o.Tail, 0))
	for _, line := range lines {
		b.event("", line)
	}
	return errors.Join(b.err, err)
}

// SessionRecord is the first line of `mage bus -json`: the session with a type
// that tells it from events.
type SessionRecord struct {
	Type      string                  `json:"type"` // "session"
	Workspace string                  `json:"workspace"`
	Root      string                  `json:"root"`
	VMs       map[string]workspace.VM `json:"vms"`
}

func (p *Project) writeSession(b *bus) error {
	records, fault, err := p.records()
	if err != nil {
		return err
	}
	if b.json {
		line, err := json.Marshal(SessionRecord{"session", p.id, p.root, records})
		if err == nil {
			_, err = fmt.Fprintln(b.w, report.EscapeJSON(string(line)))
		}
		return errors.Join(fault, err)
	}
	fmt.Fprintln(b.w, report.Sanitize(fmt.Sprintf("workspace %s (%s)", p.id, shortHome(p.root))))
	if fault != nil {
		fmt.Fprintln(b.w, report.Sanitize(fault.Error()))
	}
	var rows [][]string
	for _, vm := range p.known(records) {
		r, ok := records[vm]
		if !ok {
			continue
		}
		rows = append(rows, []string{vm, r.Health, fmt.Sprint(r.PID), r.Accelerator, fmt.Sprintf("%s@%s:%d", r.SSH.User, r.SSH.Host, r.SSH.Port), shortHome(r.SSH.Identity)})
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(b.w, "nothing is on record to run")
		return err
	}
	return report.Table(b.w, []string{"vm", "health", "pid", "accel", "ssh", "identity"}, rows)
}

// bus prints events.
type bus struct {
	w    io.Writer
	json bool
	err  error
}

// event prints one line of events.jsonl. As text, a line that is none, cut
// short by a crash, and one of a kind that a later Castra wrote, are shown as
// they are; as JSON, what does not parse is left out, so that all that comes
// does.
func (b *bus) event(_, line string) {
	if b.err != nil {
		return
	}
	if b.json {
		if json.Valid([]byte(line)) {
			_, b.err = fmt.Fprintln(b.w, report.EscapeJSON(line))
		}
		return
	}
	var r event.Record
	text := report.Sanitize(line)
	if err := json.Unmarshal([]byte(line), &r); err == nil {
		text = report.History(r)
	}
	_, b.err = fmt.Fprintln(b.w, text)
}
