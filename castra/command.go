package castra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

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
	tidied  []PrunedItem
}

// begin takes the workspace's lock for the verb called name, and loads its
// session. A session that cannot be read is set aside: the pidfiles tell what
// runs. The caller must call end.
func (p *Project) begin(ctx context.Context, ws *workspace.Workspace, name string) (*command, error) {
	c := &command{Project: p, ws: ws, name: name, began: time.Now()}
	c.events = event.NewEmitter(ws.ID, time.Now, reporters(p.Reporter)...)
	if name == "down" || (name == "clean" || name == "prune") && p.options.Force {
		ws.AskDown("mage " + name)
	}
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
	c.tidy()
	return c, nil
}

// tidy removes what killed commands had not put in place and what earlier
// programs of this name left, and brings the index of workspaces up to date.
// None is worth failing for.
func (c *command) tidy() {
	items, err := c.ws.RemoveStaged()
	legacy, legacyErr := c.ws.RemoveLegacy()
	err = errors.Join(err, legacyErr)
	for _, item := range append(items, legacy...) {
		c.tidied = append(c.tidied, PrunedItem{c.ws.ID, filepath.Join(c.ws.Root, item.Path), item.Kind, item.Bytes})
		c.events.Emit(event.Cleanup{Path: filepath.Join(c.ws.Root, item.Path), What: item.Kind, Bytes: item.Bytes})
	}
	stale, healErr := workspace.Heal(c.home)
	err = errors.Join(err, healErr)
	c.tidied = append(c.tidied, indexItems(stale)...)
	if c.name == "up" { // what is in the index already needs no writing there
		err = errors.Join(err, workspace.Register(c.home, c.ws))
	}
	if err != nil {
		c.warn("", err.Error(), "")
	}
}

// during tells every second, while f runs, what a VM is waited for. A limit of
// 0 is none.
func (c *command) during(vm, what string, limit time.Duration, f func()) {
	done := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		began := time.Now()
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				c.events.Emit(event.Waiting{VM: vm, For: what, ElapsedMS: time.Since(began).Milliseconds(), LimitMS: limit.Milliseconds()})
			}
		}
	})
	f()
	close(done)
	telling.Wait()
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
func (p *Project) say(e event.Event) { say(p.Reporter, p.id, e) }

func say(r event.Reporter, workspaceID string, e event.Event) {
	event.NewEmitter(workspaceID, time.Now, reporters(r)...).Emit(e)
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
// another name. Clean and prune have none: they remove the journal. A verb does its work
// also where there is no room for one.
func (c *command) openJournal() (event.Reporter, error) {
	if c.name == "clean" || c.name == "prune" {
		return nil, nil
	}
	if err := c.ws.MakeDir(c.ws.Logs()); err != nil {
		return nil, err
	}
	if err := c.ws.RotateLog(c.ws.EventLog(), journalLimit); err != nil {
		return nil, err
	}
	f, err := c.ws.AppendLog(c.ws.EventLog())
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
