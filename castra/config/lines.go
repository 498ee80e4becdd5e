package config

import (
	"fmt"
	"strings"
)

// lines maps paths of keys, such as vms[1].port_forwards[0].guest, to the
// lines they stand on: the TOML library tells positions of syntax errors
// alone. It reads a file that is known to be valid TOML, line by line, and
// needs to understand no more than where keys and tables begin.
type lines map[string]int

// of is the line of path, or that of the nearest table around it.
func (l lines) of(path string) int {
	for path != "" {
		if n, ok := l[path]; ok {
			return n
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	return 1
}

// index reads the lines of text.
func index(text string) lines {
	l := lines{}
	table := ""                // path of the table that keys belong to
	counts := map[string]int{} // entries of each array of tables so far
	skip := skipper{}
	for n, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case skip.inside():
		case strings.HasPrefix(trimmed, "[["):
			name := resolveArrays(keyPath(header(trimmed[2:])), counts)
			table = fmt.Sprintf("%s[%d]", name, counts[name])
			counts[name]++
			l.put(table, n+1)
			continue
		case strings.HasPrefix(trimmed, "["):
			table = resolveArrays(keyPath(header(trimmed[1:])), counts)
			l.put(table, n+1)
			continue
		default:
			if key, value, ok := cutKey(trimmed); ok {
				path := join(table, keyPath(key))
				l.put(path, n+1)
				l.inline(path, value, n+1)
			}
		}
		skip.feed(line)
	}
	return l
}

func (l lines) put(path string, line int) {
	if _, ok := l[path]; !ok {
		l[path] = line
	}
}

// inline files the keys of an inline table that begins on this line.
func (l lines) inline(path, value string, line int) {
	value = strings.TrimSpace(value)
	if !strings.HasPrefix(value, "{") {
		return
	}
	for part := range strings.SplitSeq(strings.Trim(value, "{} "), ",") {
		if key, _, ok := cutKey(strings.TrimSpace(part)); ok {
			l.put(join(path, keyPath(key)), line)
		}
	}
}

// header is what stands in the brackets of a table's header.
func header(s string) string {
	name, _, _ := strings.Cut(s, "]")
	return name
}

// cutKey splits "key = value"; the key may be quoted.
func cutKey(s string) (key, value string, ok bool) {
	if s == "" || s[0] == '#' {
		return "", "", false
	}
	quote := byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"', c == '\'':
			quote = c
		case c == '=':
			return s[:i], s[i+1:], true
		}
	}
	return "", "", false
}

// keyPath writes a dotted or quoted key as a path.
func keyPath(key string) string {
	var parts []string
	for part := range strings.SplitSeq(key, ".") {
		parts = append(parts, strings.Trim(strings.TrimSpace(part), `"'`))
	}
	return strings.Join(parts, ".")
}

// resolveArrays puts the index of the current entry behind each array of
// tables on the way: vms.ssh is vms[1].ssh after the second [[vms]].
func resolveArrays(path string, counts map[string]int) string {
	at := ""
	parts := strings.Split(path, ".")
	for i, part := range parts {
		at = join(at, part)
		if n := counts[at]; n > 0 && i < len(parts)-1 {
			at = fmt.Sprintf("%s[%d]", at, n-1)
		}
	}
	return at
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

// skipper follows values that go over several lines: multi-line strings and
// arrays.
type skipper struct {
	quote string // the delimiter that ends the multi-line string we are in
	depth int    // open brackets
}

func (s *skipper) inside() bool { return s.quote != "" || s.depth > 0 }

func (s *skipper) feed(line string) {
	for i := 0; i < len(line); {
		rest := line[i:]
		switch {
		case s.quote != "":
			end := strings.Index(rest, s.quote)
			if end < 0 {
				return
			}
			i += end + len(s.quote)
			s.quote = ""
		case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, `'''`):
			s.quote = rest[:3]
			i += 3
		case rest[0] == '"', rest[0] == '\'':
			i += stringEnd(rest)
		case rest[0] == '#':
			return
		default:
			switch rest[0] {
			case '[', '{':
				s.depth++
			case ']', '}':
				s.depth = max(0, s.depth-1)
			}
			i++
		}
	}
}

// stringEnd is the length of the one-line string at the start of s.
func stringEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && s[0] == '"':
			i++
		case s[i] == s[0]:
			return i + 1
		}
	}
	return len(s)
}
