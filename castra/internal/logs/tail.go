package logs

import (
	"errors"
	"io"
)

// Tail returns at most the last lines of the file, oldest first, from its last
// 4 MiB. Line ends and NUL bytes (the hole that truncating an open log leaves)
// are taken off; all other bytes are as written, so a terminal needs them
// sanitised. "..." stands for what is left out: before a line that began
// earlier, and after the first 64 KiB of a longer one. A missing file has no
// lines and is no error; what is not a regular file is refused.
func Tail(path string, lines int) ([]string, error) {
	f, info, err := open(path)
	if f == nil {
		return nil, err
	}
	defer f.Close()
	start, partial, err := lastLines(f, info.Size(), lines)
	if err != nil {
		return nil, readError(err)
	}
	var out []string
	split := splitter{begun: partial, line: func(text string) { out = append(out, text) }}
	_, err = io.Copy(&split, io.NewSectionReader(f, start, info.Size()-start))
	split.flush()
	return out, readError(err)
}

const (
	reach = 4 << 20  // bytes of a file's end in which lines are looked for
	chunk = 64 << 10 // bytes read at once
)

// lastLines finds where the last n lines begin. partial is true when the first
// of them began before reach.
func lastLines(f io.ReaderAt, size int64, n int) (start int64, partial bool, err error) {
	if n <= 0 {
		return size, false, nil
	}
	// The byte before reach tells whether a line begins there; the last one of
	// all ends the last line at most.
	floor := max(size-reach-1, 0)
	buf := make([]byte, chunk)
	for end := size - 1; end > floor; {
		begin := max(end-chunk, floor)
		part := buf[:end-begin]
		if _, err := f.ReadAt(part, begin); err != nil {
			if errors.Is(err, io.EOF) { // truncated meanwhile
				return 0, false, nil
			}
			return 0, false, err
		}
		end = begin
		for i := len(part) - 1; i >= 0; i-- {
			if part[i] != '\n' {
				continue
			}
			if n--; n == 0 {
				return begin + int64(i) + 1, false, nil
			}
			if begin+int64(i) == floor && floor > 0 {
				return floor + 1, false, nil
			}
		}
	}
	return floor, floor > 0, nil
}
