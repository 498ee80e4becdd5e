package logs

import (
	"bytes"
	"strings"
)

const (
	cut     = "..."    // stands for a part of a line that is left out
	lineMax = 64 << 10 // bytes shown of one line
)

// splitter makes lines of what is written to it.
type splitter struct {
	line  func(text string)
	text  []byte
	begun bool // the line's beginning is not in text
	over  bool // the line is longer than lineMax, and its rest is left out
}

// Write never fails.
func (s *splitter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.add(p)
			return n, nil
		}
		s.add(p[:i])
		// Of a line that is shown already, the end alone is no line.
		if !s.begun || len(s.text) > 0 {
			s.show()
		}
		s.begun, s.over = false, false
		p = p[i+1:]
	}
}

func (s *splitter) add(p []byte) {
	if s.over {
		return
	}
	for _, b := range p {
		switch {
		case b == 0:
		case len(s.text) == lineMax:
			s.over = true
			return
		default:
			s.text = append(s.text, b)
		}
	}
}

// flush shows a line that has no end yet. What comes of it later is a line of
// its own.
func (s *splitter) flush() {
	if len(s.text) > 0 {
		s.show()
		s.begun = true
	}
}

// restart begins a new text, in the middle of a line where begun.
func (s *splitter) restart(begun bool) {
	s.flush()
	s.begun, s.over = begun, false
}

func (s *splitter) show() {
	var b strings.Builder
	if s.begun {
		b.WriteString(cut)
	}
	b.Write(bytes.TrimRight(s.text, "\r"))
	if s.over {
		b.WriteString(cut)
	}
	s.text = s.text[:0]
	s.line(b.String())
}
