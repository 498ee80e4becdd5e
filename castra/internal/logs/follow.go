package logs

import (
	"context"
	"slices"
	"time"
)

// File is a log to follow. Prefix is handed back with each of its lines.
type File struct{ Path, Prefix string }

const (
	pollGap    = 50 * time.Millisecond
	joinPolls  = 10 // between two looks for new logs
	quietPolls = 20 // before a line without an end is shown as it is
	turn       = 16 // chunks of one file before the next has its turn
)

// Follow calls line, from this goroutine, with the last lines of each file as
// Tail gives them, and then with what is written to them, until ctx ends, which
// is no error. A new line comes within 100 ms. A line that stays without an end,
// as a prompt does, is shown after a second, and its rest as "...rest".
//
// files is asked twice a second, so that new logs join, with all they have
// (their last 4 MiB at most), and others leave. A file may be missing, be
// truncated, or be renamed and made anew: its rest is shown, and then the new
// one. What cannot be read is told once, as a line of that file. Text is as
// written, so a terminal needs it sanitised. Memory is
// bounded: 64 KiB, and as much for each file.
func Follow(ctx context.Context, files func() []File, tail int, line func(prefix, text string)) error {
	f := &follower{line: line, buf: make([]byte, chunk)}
	defer f.join(nil)
	ticker := time.NewTicker(pollGap)
	defer ticker.Stop()
	for polls := 0; ; polls++ {
		if polls%joinPolls == 0 {
			f.join(files())
		}
		if polls == 0 {
			for _, log := range f.logs {
				log.open(f.buf, tail)
			}
		}
		if f.poll() && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

type follower struct {
	line func(prefix, text string)
	buf  []byte
	logs []*followed
}

// join takes up the files that are new and lets go of those no longer listed.
func (f *follower) join(files []File) {
	var logs []*followed
	for _, file := range files {
		same := func(log *followed) bool { return log.Path == file.Path }
		if slices.ContainsFunc(logs, same) {
			continue
		}
		if i := slices.IndexFunc(f.logs, same); i >= 0 {
			logs = append(logs, f.logs[i])
			f.logs = slices.Delete(f.logs, i, i+1)
			continue
		}
		log := &followed{File: file}
		log.split.line = func(text string) { f.line(log.Prefix, text) }
		logs = append(logs, log)
	}
	for _, gone := range f.logs {
		gone.split.flush()
		if gone.file != nil {
			gone.file.Close()
		}
	}
	f.logs = logs
}

// poll shows what is new, and says whether there is more.
func (f *follower) poll() (more bool) {
	for _, log := range f.logs {
		more = log.poll(f.buf) || more
	}
	return more
}
