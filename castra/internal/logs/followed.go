package logs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
)

// followed is one log on the way.
type followed struct {
	File
	file    *os.File // nil: not there yet
	offset  int64
	split   splitter
	quiet   int    // polls since something came
	trouble string // what was told last
}

// poll shows what was written since, and says whether there may be more.
func (l *followed) poll(buf []byte) (more bool) {
	if l.file != nil && l.read(buf) {
		return true
	}
	info, err := os.Lstat(l.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false // or renamed, and the new one is not there yet
	case err != nil:
		l.tell(readError(err))
		return false
	case l.file != nil:
		if held, err := l.file.Stat(); err == nil && os.SameFile(held, info) {
			return false
		}
	}
	return l.open(buf, math.MaxInt)
}

// open goes on with the last lines of the file that stands under the path now.
func (l *followed) open(buf []byte, tail int) bool {
	file, info, err := open(l.Path)
	l.tell(err)
	if file == nil {
		return false
	}
	start, partial, err := lastLines(file, info.Size(), tail)
	if err != nil {
		l.tell(readError(err))
		file.Close()
		return false
	}
	if l.file != nil {
		l.read(buf) // what came just before it was renamed
		l.file.Close()
	}
	l.file, l.offset = file, start
	l.split.restart(partial)
	return true
}

func (l *followed) read(buf []byte) (more bool) {
	info, err := l.file.Stat()
	if err != nil {
		l.tell(readError(err))
		return false
	}
	if info.Size() < l.offset { // truncated
		l.offset = 0
		l.split.restart(false)
	}
	before := l.offset
	for range turn {
		n, err := l.file.ReadAt(buf, l.offset)
		l.offset += int64(n)
		_, _ = l.split.Write(buf[:n])
		if err != nil {
			if !errors.Is(err, io.EOF) {
				l.tell(readError(err))
			}
			l.rest(l.offset > before)
			return false
		}
	}
	return true
}

// rest shows a line without an end once nothing has come for a while.
func (l *followed) rest(grew bool) {
	l.quiet++
	if grew {
		l.quiet = 0
	}
	if l.quiet == quietPolls {
		l.split.flush()
	}
}

// tell shows a trouble once.
func (l *followed) tell(err error) {
	text := ""
	if err != nil {
		text = "(" + err.Error() + ")"
	}
	if text != "" && text != l.trouble {
		l.split.line(text)
	}
	l.trouble = text
}
