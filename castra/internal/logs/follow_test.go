package logs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second // for a busy machine

// following is a Follow on its way.
type following struct {
	t     *testing.T
	lines chan string
	mu    sync.Mutex
	files []File
	asked int
	again chan struct{} // closed when the files are asked for a second time
}

func follow(t *testing.T, tail int, files ...File) *following {
	t.Helper()
	f := &following{t: t, lines: make(chan string, 10_000), files: files, again: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, f.list, tail, func(prefix, text string) { f.lines <- prefix + "|" + text })
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	<-f.again // what is written from now on is new
	return f
}

func (f *following) list() []File {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked++; f.asked == 2 {
		close(f.again)
	}
	return f.files
}

func (f *following) join(files ...File) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files = files
}

// next are the next lines that are shown.
func (f *following) next(want ...string) {
	f.t.Helper()
	for _, line := range want {
		select {
		case got := <-f.lines:
			if got != line {
				require.Failf(f.t, "another line", "got %.200q, want %.200q", got, line)
			}
		case <-time.After(patience):
			require.Failf(f.t, "no line", "want %.200q", line)
		}
	}
}

func add(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = file.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

func TestFollow(t *testing.T) {
	a, b := write(t, "1\n2\n3\n"), write(t, "x\ny")
	f := follow(t, 2, File{a, "a"}, File{b, "b"}, File{a, "again"})
	f.next("a|2", "a|3", "b|x")
	add(t, b, "z\r\n")
	f.next("b|yz")
	add(t, a, "4\n\n5\n")
	f.next("a|4", "a|", "a|5")
}

func TestFollowNoTail(t *testing.T) {
	for _, tail := range []int{0, -1} {
		a := write(t, "1\n2\n")
		late := filepath.Join(t.TempDir(), "late")
		f := follow(t, tail, File{a, "a"}, File{late, "late"})
		// Of a log that is new, every line is new.
		add(t, late, "first\nsecond\n")
		f.next("late|first", "late|second")
		add(t, a, "3\n")
		f.next("a|3")
	}
}

// A prompt has no line end.
func TestFollowUnfinished(t *testing.T) {
	a := write(t, "boot\nlogin: ")
	f := follow(t, 5, File{a, "a"})
	f.next("a|boot", "a|login: ")
	add(t, a, "root\nnext\n")
	f.next("a|...root", "a|next")
	add(t, a, "password: ")
	f.next("a|password: ")
	add(t, a, "\nin\n")
	f.next("a|in")
}

// What is left without an end is shown at the end.
func TestFollowEnds(t *testing.T) {
	a := write(t, "one\ntwo")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var shown []string
	require.NoError(t, Follow(ctx, func() []File { return []File{{a, "a"}} }, 5, func(_, text string) { shown = append(shown, text) }))
	require.Equal(t, []string{"one", "two"}, shown)
}

func TestFollowJoinAndLeave(t *testing.T) {
	a, b := write(t, "a1\n"), write(t, "b1\nb2\n")
	f := follow(t, 1, File{a, "a"})
	f.next("a|a1")
	f.join(File{a, "a"}, File{b, "b"})
	f.next("b|b1", "b|b2")
	f.join(File{b, "b"})
	add(t, a, "unfinished")
	f.next("a|unfinished") // by being quiet, or by leaving
	f.join(File{a, "a"}, File{b, "b"})
	add(t, b, "b3\n")
	f.next("b|b3")
}

// Failure bank 96: a log that is truncated in place, and a hole of NULs where
// the writer did not append.
func TestFollowTruncated(t *testing.T) {
	a := write(t, "old 1\nold 2\n")
	writer, err := os.OpenFile(a, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer writer.Close()
	_, err = writer.Seek(0, 2)
	require.NoError(t, err)
	f := follow(t, 1, File{a, "a"})
	f.next("a|old 2")
	require.NoError(t, os.Truncate(a, 0))
	_, err = writer.WriteString("at the old offset, longer than before\n")
	require.NoError(t, err)
	f.next("a|at the old offset, longer than before")

	require.NoError(t, os.Truncate(a, 0))
	add(t, a, "new\n")
	f.next("a|new")
}

// Failure bank 97: up sets the last boot's log aside and begins anew.
func TestFollowReplaced(t *testing.T) {
	a := write(t, "boot 1\n")
	old, err := os.OpenFile(a, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer old.Close()
	f := follow(t, 5, File{a, "a"})
	f.next("a|boot 1")
	require.NoError(t, os.Rename(a, a+".1"))
	_, err = old.WriteString("last words\nof the old")
	require.NoError(t, err)
	add(t, a, "boot 2\n")
	f.next("a|last words", "a|of the old", "a|boot 2")
	for i := range 20 { // removed and made anew, also with the same inode
		require.NoError(t, os.Remove(a))
		add(t, a, fmt.Sprintf("boot %d\n", i))
		f.next(fmt.Sprintf("a|boot %d", i))
	}
}

// What is in a log's place and no log is told once, and the log is shown when
// it comes.
func TestFollowNoFile(t *testing.T) {
	target := write(t, "secret\n")
	for name, put := range map[string]func(path string) error{
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"symlink":   func(p string) error { return os.Symlink(target, p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			a, beat := filepath.Join(t.TempDir(), "a.log"), write(t, "")
			require.NoError(t, put(a))
			f := follow(t, 5, File{a, "a"}, File{beat, "beat"})
			told := <-f.lines
			require.Contains(t, told, "a|(read log: "+a)
			require.Contains(t, told, "not a regular file")
			for i := range 3 { // polls have gone by
				add(t, beat, fmt.Sprintf("%d\n", i))
				f.next(fmt.Sprintf("beat|%d", i))
			}
			require.NoError(t, os.Remove(a))
			add(t, a, "log\n")
			f.next("a|log")
			// In the place of one that is followed, too.
			require.NoError(t, os.Remove(a))
			require.NoError(t, put(a))
			require.Equal(t, told, <-f.lines)
		})
	}
}

// Failure bank 95: long lines are cut, and memory stays small.
func TestFollowIsBounded(t *testing.T) {
	a := write(t, "")
	f := follow(t, 5, File{a, "a"})
	long := strings.Repeat("y", 50<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	add(t, a, long)
	add(t, a, "\nnext\n")
	f.next("a|"+long[:lineMax]+cut, "a|next")
	require.NoError(t, os.Truncate(a, 200<<20)) // a hole of NULs
	add(t, a, "after the hole\n")
	f.next("a|after the hole")
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32*chunk))

	big := write(t, strings.Repeat(strings.Repeat("z", 1023)+"\n", 20<<10))
	f.join(File{big, "big"}) // only its last part
	for range reach >> 10 {
		f.next("big|" + strings.Repeat("z", 1023))
	}
	add(t, big, "end\n")
	f.next("big|end")
}

// Lines written by several writers in pieces come whole, each once, in order.
func TestFollowWhileWriting(t *testing.T) {
	const count = 500
	paths := []string{write(t, ""), write(t, ""), write(t, "")}
	var files []File
	for i, path := range paths {
		files = append(files, File{path, fmt.Sprint(i)})
	}
	f := follow(t, 5, files...)
	var writing sync.WaitGroup
	for _, path := range paths {
		writing.Go(func() {
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer file.Close()
			for i := range count {
				for _, part := range []string{"line ", fmt.Sprint(i), "\n"} {
					if _, err := file.WriteString(part); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	next := make([]int, len(paths))
	for range count * len(paths) {
		select {
		case got := <-f.lines:
			prefix, text, _ := strings.Cut(got, "|")
			i := int(prefix[0] - '0')
			require.Equal(t, fmt.Sprintf("line %d", next[i]), text)
			next[i]++
		case <-time.After(patience):
			require.FailNow(t, "lines are missing", "%v", next)
		}
	}
	writing.Wait()
}
