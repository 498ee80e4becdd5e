package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// window is how much of a file's end is read, in bytes.
const window = 64 << 10

// cut marks a line whose beginning lies before the window.
const cut = "..."

// Tail returns at most the last lines of the file, oldest first, from its last
// 64 KiB. Line ends and NUL bytes (the hole that truncating an open log
// leaves) are taken off; all other bytes are as written, so a terminal needs
// them sanitised. A line that began earlier starts with "...". A missing file
// has no lines and is no error; what is not a regular file is refused.
func Tail(path string, lines int) ([]string, error) {
	if lines <= 0 {
		return nil, nil
	}
	data, partial, err := readEnd(path)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	if partial {
		// The first newline may end a line that the window does not show.
		if rest, found := bytes.CutPrefix(data, []byte("\n")); found {
			data, partial = rest, false
		}
	}
	var out []string
	for len(out) < lines {
		i := bytes.LastIndexByte(data, '\n')
		text := string(bytes.TrimRight(data[i+1:], "\r"))
		text = strings.ReplaceAll(text, "\x00", "")
		if i < 0 && partial {
			text = cut + text
		}
		out = append(out, text)
		if i < 0 {
			break
		}
		data = data[:i]
	}
	slices.Reverse(out)
	return out, nil
}

// readEnd returns the file's last bytes and whether there are more before
// them. O_NONBLOCK keeps a FIFO left in the log's place from blocking.
func readEnd(path string) (data []byte, partial bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case errors.Is(err, syscall.ELOOP):
		return nil, false, fmt.Errorf("read log %s: a symbolic link, not a regular file", path)
	case err != nil:
		return nil, false, fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("read log: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("read log %s: not a regular file (%s)", path, info.Mode().Type())
	}
	start := max(info.Size()-window, 0)
	data = make([]byte, info.Size()-start)
	n, err := f.ReadAt(data, start)
	if err != nil && !errors.Is(err, io.EOF) { // EOF: truncated since Stat
		return nil, false, fmt.Errorf("read log: %w", err)
	}
	return data[:n], start > 0, nil
}
