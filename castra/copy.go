package castra

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/report"
)

// Copy copies a file, or a directory with all below it, between this computer
// and a guest. One of the two is "vm:path", with a VM by its name or the role of
// a lone replica; a relative path there begins in the home directory of the
// login user. A name that holds a colon and is of this computer is written with
// a slash before it: "./a:b".
func (p *Project) Copy(ctx context.Context, src, dst string) error {
	from, to := parsePlace(src), parsePlace(dst)
	if (from.vm == "") == (to.vm == "") {
		return &usageError{fmt.Sprintf("copy %s %s: one of the two must be in a guest, and the other on this computer", src, dst), "write vm:path for the one in the guest: mage copy web:/var/log/messages ."}
	}
	vm := from.vm + to.vm
	client, name, err := p.dial(ctx, "copy", vm)
	if err != nil {
		return err
	}
	defer client.Close()
	began := time.Now()
	progress := &copyProgress{say: p.say, last: event.CopyProgress{VM: name, Source: src, Target: dst, Total: size(from)}}
	client.Progress = progress.moved
	if from.vm == "" {
		err = client.Upload(ctx, from.path, to.path)
	} else {
		err = client.Download(ctx, from.path, to.path)
	}
	elapsed := time.Since(began).Milliseconds()
	if err != nil {
		p.say(event.CommandFailed{Command: "copy", Error: err.Error(), ElapsedMS: elapsed})
		return &VMError{Op: "copy", VM: name, Err: err}
	}
	p.say(event.Summary{Command: "copy", Text: report.Bytes(progress.done()) + " copied", ElapsedMS: elapsed})
	return nil
}

// place is one side of a copy.
type place struct {
	vm   string // "" is this computer
	path string
}

func parsePlace(s string) place {
	vm, path, found := strings.Cut(s, ":")
	if !found || vm == "" || strings.ContainsAny(vm, `/\`) || strings.HasPrefix(vm, ".") {
		return place{path: s}
	}
	if path == "" {
		path = "."
	}
	return place{vm, path}
}

// size is that of what lies on this computer, in bytes; 0 where it cannot be told.
func size(p place) int64 {
	var sum int64
	if p.vm != "" {
		return 0
	}
	_ = filepath.WalkDir(p.path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

// copyProgress tells of a copy, not more often than people can read.
type copyProgress struct {
	say  func(event.Event)
	mu   sync.Mutex
	last event.CopyProgress
	told time.Time
}

const progressEvery = 200 * time.Millisecond

func (c *copyProgress) moved(done int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last.Done = done
	if now := time.Now(); now.Sub(c.told) >= progressEvery {
		c.told = now
		c.say(c.last)
	}
}

func (c *copyProgress) done() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.Done
}
