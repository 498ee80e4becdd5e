package castra

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/workspace"
)

// command is one verb being carried out by this process as the only writer of
// the workspace.
type command struct {
	*Project
	ws      *workspace.Workspace
	name    string
	began   time.Time
	events  *event.Emitter
	session *session
	unlock  func()
	journal *os.File // nil where there is none
}

// begin takes the workspace's lock for the verb called name, and loads its
// session. A session that cannot be read is set aside: the pidfiles tell what
// runs. The caller must call end.
func (p *Project) begin(ctx context.Context, ws *workspace.Workspace, name string) (*command, error) {
	c := &command{Project: p, ws: ws, name: name, began: time.Now()}
	c.events = event.NewEmitter(ws.ID, time.Now, reporters(p.Reporter)...)
	var err error
	c.unlock, err = ws.Lock(ctx, "mage "+name, func(h workspace.Holder) {
		c.warn("", fmt.Sprintf("waiting for %s, at most %s", h, workspace.LockWait), "")
	})
	if err != nil {
		return nil, err
	}
	if journal, err := c.openJournal(); err != nil {
		c.warn("", fmt.Sprintf("events are not kept: %v", err), "")
	} else {
		c.events = event.NewEmitter(ws.ID, time.Now, reporters(p.Reporter, journal)...)
	}
	if c.session, err = loadSession(ws, c.warn); err != nil {
		c.end()
		return nil, err
	}
	c.events.Emit(event.CommandAccepted{Command: name})
	return c, nil
}

// end gives the lock back.
func (c *command) end() {
	c.unlock()
	c.closeJournal()
}

// finish reports how the verb ended and hands its error on.
func (c *command) finish(summary string, err error) error {
	ms := time.Since(c.began).Milliseconds()
	if err != nil {
		c.events.Emit(event.CommandFailed{Command: c.name, Error: err.Error(), ElapsedMS: ms})
		return err
	}
	c.events.Emit(event.CommandCompleted{Command: c.name, ElapsedMS: ms})
	c.events.Emit(event.Summary{Command: c.name, Text: summary, ElapsedMS: ms})
	return nil
}

func (c *command) warn(vm, text, hint string) {
	c.events.Emit(event.Message{VM: vm, Level: "warning", Text: text, Hint: hint})
}

// say reports outside a command, where there is no workspace to journal in.
func (p *Project) say(e event.Event) {
	event.NewEmitter(p.id, time.Now, reporters(p.Reporter)...).Emit(e)
}

func reporters(all ...event.Reporter) []event.Reporter {
	var rs []event.Reporter
	for _, r := range all {
		if r != nil {
			rs = append(rs, r)
		}
	}
	return rs
}

const journalLimit = 4 << 20

// openJournal opens events.jsonl for appending; a long one is kept once under
// another name. Clean has none: it removes the journal. A verb does its work
// also where there is no room for one.
func (c *command) openJournal() (event.Reporter, error) {
	if c.name == "clean" {
		return nil, nil
	}
	if err := c.ws.MakeDir(c.ws.Logs()); err != nil {
		return nil, err
	}
	path := c.ws.EventLog()
	if st, err := os.Lstat(path); err == nil && st.Size() > journalLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	c.journal = f
	return report.NewJSON(f), nil
}

func (c *command) closeJournal() {
	if c.journal != nil {
		c.journal.Close()
	}
}
