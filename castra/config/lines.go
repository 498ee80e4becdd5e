package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// lines maps paths of keys, such as vms[1].port_forwards[0].guest, to the
// lines they stand on: the TOML library tells positions of syntax errors
// alone.
type lines map[string]int

const (
	maxNesting = 16      // of tables and arrays, and of names in a dotted key
	maxKey     = 128     // bytes of one name
	maxValues  = 1 << 14 // several times what the largest legal file has
)

// of is the line of path, or that of the nearest table around it.
func (l lines) of(path string) int {
	for path != "" {
		if n, ok := l[path]; ok {
			return n
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 1
}

// secretPattern is of paths of variables and of the tables that hold them, in whatever letter case.
var secretPattern = lazily(`(?i)(^|\.)"?env"?(\.|\[|$)`)

// secret tells that the text at a line may be a variable's: the library quotes it in its messages.
func (l lines) secret(line int) bool {
	nearest, secret := 0, false
	for path, n := range l {
		if n > line || n < nearest {
			continue
		}
		is := secretPattern().MatchString(path)
		nearest, secret = n, is || n == nearest && secret
	}
	return secret
}

func (l lines) put(path string, line int) {
	if _, ok := l[path]; !ok {
		l[path] = line
	}
}

// scanner walks over TOML. It looks for no faults in it: where it understands
// a line no longer, the library, which does, stops too.
type scanner struct {
	text   string
	pos    int
	line   int
	found  lines
	table  string         // that keys now belong to
	counts map[string]int // entries of each array of tables so far
	values int
	excess excess
}

// excess is what the library would spend unbounded time or memory on, and
// where; the zero value is none.
type excess struct {
	line    int
	problem string
}

// index finds the lines of all keys, up to the first excess.
func index(text string) (lines, excess) {
	s := &scanner{text: text, line: 1, found: lines{}, counts: map[string]int{}}
	for s.blank(); s.pos < len(text) && s.excess.line == 0; s.blank() {
		if s.peek() == '[' {
			s.header()
		} else {
			s.pair(s.table, 0)
		}
		s.skipTo("\n")
	}
	return s.found, s.excess
}

// header enters the table or the entry of an array of tables that it names.
func (s *scanner) header() {
	s.count()
	line := s.line
	s.take(1)
	entry := s.peek() == '['
	if entry {
		s.take(1)
	}
	path := ""
	names := s.key()
	for i, name := range names {
		path = join(path, name)
		s.found.put(path, line)
		if entry && i == len(names)-1 {
			s.counts[path]++
		}
		if n := s.counts[path]; n > 0 {
			path = element(path, n-1)
			s.found.put(path, line)
		}
	}
	s.table = path
}

// pair reads "key = value".
func (s *scanner) pair(path string, depth int) {
	line := s.line
	for _, name := range s.key() {
		path = join(path, name)
		s.found.put(path, line)
	}
	if s.peek() == '=' {
		s.take(1)
		s.value(path, depth)
	}
}

// key reads a dotted key, and gives each of its names as a path holds it.
func (s *scanner) key() []string {
	var names []string
	for {
		s.spaces()
		name := ""
		if c := s.peek(); c == '"' || c == '\'' {
			name = s.str()
			if unquoted, err := strconv.Unquote(`"` + name + `"`); c == '"' && err == nil {
				name = unquoted
			}
		} else {
			from := s.pos
			s.skipTo(" \t\r\n.=]#\"'")
			name = s.text[from:s.pos]
		}
		names = append(names, segment(name))
		if len(name) > maxKey {
			s.stop(fmt.Sprintf("a key has more than %d bytes", maxKey))
		}
		if len(names) > maxNesting {
			s.stop(fmt.Sprintf("a key has more than %d names", maxNesting))
			return names
		}
		s.spaces()
		if s.peek() != '.' {
			return names
		}
		s.take(1)
	}
}

func (s *scanner) value(path string, depth int) {
	s.count()
	if depth++; depth > maxNesting {
		s.stop(fmt.Sprintf("tables or arrays are nested more than %d deep", maxNesting))
	}
	s.spaces()
	switch c := s.peek(); c {
	case '"', '\'':
		s.str()
	case '[', '{':
		s.take(1)
		s.entries(path, depth, c == '[')
	default:
		s.skipTo(",]}#\n")
	}
}

// entries reads an array or an inline table to its end.
func (s *scanner) entries(path string, depth int, array bool) {
	for n := 0; s.excess.line == 0; n++ {
		s.blank()
		if c := s.peek(); c == ']' || c == '}' {
			s.take(1)
			return
		}
		if array {
			at := element(path, n)
			s.found.put(at, s.line)
			s.value(at, depth)
		} else {
			s.pair(path, depth)
		}
		s.blank()
		if s.peek() == ',' {
			s.take(1)
		} else if c := s.peek(); c != ']' && c != '}' {
			return
		}
	}
}

// str reads a string of any of the four kinds and gives what stands in its
// quotes.
func (s *scanner) str() string {
	quote, stop := s.text[s.pos:s.pos+1], "\n"
	if long := strings.Repeat(quote, 3); strings.HasPrefix(s.text[s.pos:], long) {
		quote, stop = long, ""
	}
	s.take(len(quote))
	from := s.pos
	for s.pos < len(s.text) {
		rest := s.text[s.pos:]
		switch {
		case stop != "" && strings.HasPrefix(rest, stop):
			return s.text[from:s.pos]
		case rest[0] == '\\' && quote[0] == '"':
			s.take(2)
		case strings.HasPrefix(rest, quote):
			content := s.text[from:s.pos]
			s.take(len(quote))
			for stop == "" && s.peek() == quote[0] { // quotes may touch the closing three
				s.take(1)
			}
			return content
		default:
			s.take(1)
		}
	}
	return s.text[from:]
}

func (s *scanner) count() {
	if s.values++; s.values > maxValues {
		s.stop(fmt.Sprintf("the file has more than %d values", maxValues))
	}
}

// stop ends the scan.
func (s *scanner) stop(problem string) {
	if s.excess.line == 0 {
		s.excess = excess{s.line, problem}
	}
}

// peek is the next byte; 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) take(n int) {
	n = min(n, len(s.text)-s.pos)
	s.line += strings.Count(s.text[s.pos:s.pos+n], "\n")
	s.pos += n
}

// skipTo goes to the next of the bytes in stop.
func (s *scanner) skipTo(stop string) {
	if n := strings.IndexAny(s.text[s.pos:], stop); n >= 0 {
		s.take(n)
	} else {
		s.take(len(s.text) - s.pos)
	}
}

func (s *scanner) spaces() {
	for c := s.peek(); c == ' ' || c == '\t' || c == '\r'; c = s.peek() {
		s.take(1)
	}
}

// blank goes over white space and comments.
func (s *scanner) blank() {
	for s.pos < len(s.text) {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.take(1)
		case '#':
			s.skipTo("\n")
		default:
			return
		}
	}
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

func element(array string, n int) string { return fmt.Sprintf("%s[%d]", array, n) }

var barePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)

// segment writes a key as a path holds it: quoted unless it is a short bare
// one, so that a path is one line that can be read in one way.
func segment(key string) string {
	if barePattern.MatchString(key) {
		return key
	}
	return strconv.Quote(shorten(key))
}
