package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
	"unicode/utf8"
)

const (
	sizeLimit = 1 << 20 // of one file, in bytes
	fileHelp  = "put a text file of at most 1 MiB there"
)

// read takes a regular file of bounded size, and never waits for one that is
// not: to open a FIFO would, without O_NONBLOCK.
func read(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, Faults{{File: file, Problem: "it is not a regular file", Help: fileHelp}}
	}
	data, err := io.ReadAll(io.LimitReader(f, sizeLimit+1))
	if err != nil {
		return nil, err
	}
	if len(data) > sizeLimit {
		return nil, Faults{{File: file, Problem: fmt.Sprintf("it is larger than %d KiB", sizeLimit>>10), Help: fileHelp}}
	}
	return data, nil
}

// text checks the encoding and drops one byte-order mark.
func text(file string, data []byte) (string, error) {
	bom := []byte("\xef\xbb\xbf")
	rest := bytes.TrimPrefix(data, bom)
	at, problem := 0, ""
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		problem = "UTF-16, and TOML is UTF-8"
	case bytes.HasPrefix(rest, bom):
		problem = "UTF-8 with two byte-order marks"
	case bytes.IndexByte(rest, 0) >= 0:
		at, problem = bytes.IndexByte(rest, 0), "a NUL byte: UTF-16, or no text"
	case !utf8.Valid(rest):
		at, problem = invalidUTF8(rest), "a byte that is not UTF-8"
	case bareCR(rest) >= 0:
		at, problem = bareCR(rest), "a CR without LF ends the line"
	default:
		return string(rest), nil
	}
	return "", Faults{{File: file, Line: 1 + bytes.Count(rest[:at], []byte("\n")), Problem: "encoding: " + problem,
		Help: "save the file as UTF-8 with LF or CRLF at the ends of lines"}}
}

func invalidUTF8(data []byte) int {
	for at := 0; at < len(data); {
		r, n := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && n == 1 {
			return at
		}
		at += n
	}
	return len(data)
}

func bareCR(data []byte) int {
	for at, c := range data {
		if c == '\r' && (at+1 == len(data) || data[at+1] != '\n') {
			return at
		}
	}
	return -1
}
