package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// table reads one TOML table key by key, files a fault for every value of the
// wrong type, and knows at the end which keys nobody asked for.
type table struct {
	f      *source
	path   string
	m      map[string]any
	known  []string
	broken bool // its value is no table: what is missing in it is no fault
	secret bool // its values stand in no fault
}

func (t *table) at(key string) string { return join(t.path, segment(key)) }

func (t *table) fault(key, problem, help string) { t.f.add(t.at(key), problem, help) }

func (t *table) wrongType(key string, v any, want, help string) {
	is := kindOf(v)
	if t.secret {
		is = nameOf(v)
	}
	t.fault(key, fmt.Sprintf("it must be %s, and this is %s", want, is), help)
}

// has tells that the file gives key.
func (t *table) has(key string) bool {
	_, ok := t.m[key]
	return ok
}

// value takes a key off the table.
func (t *table) value(key string) (any, bool) {
	t.known = append(t.known, key)
	v, ok := t.m[key]
	return v, ok
}

// str is a string; ok is false where there is none, or none that can be used.
func (t *table) str(key string) (s string, ok bool) {
	v, ok := t.value(key)
	if !ok {
		return "", false
	}
	s, ok = v.(string)
	switch {
	case !ok:
		help := "write a string in quotes"
		switch v.(type) {
		case int64, float64, bool:
			if !t.secret {
				help = fmt.Sprintf(`write it in quotes: "%v"`, v)
			}
		}
		t.wrongType(key, v, "a string", help)
	case strings.ContainsRune(s, 0):
		t.fault(key, "it holds a NUL character", "remove the character")
		return "", false
	}
	return s, ok
}

// spelling is the one of the names that differs from key in letter case at
// most; "" where there is none.
func spelling(key string, names []string) string {
	for _, name := range names {
		if strings.EqualFold(key, name) {
			return name
		}
	}
	return ""
}

// missing tells that the file gives key in no spelling: done tells of others.
func (t *table) missing(key string) bool {
	return !t.broken && spelling(key, slices.Collect(maps.Keys(t.m))) == ""
}

// required is str for a key that must be there.
func (t *table) required(key, help string) (s string, ok bool) {
	if t.missing(key) {
		t.fault(key, "it is missing", help)
	}
	return t.str(key)
}

// filled is str for a key that makes no sense when empty.
func (t *table) filled(key, help string) (s string, ok bool) {
	s, ok = t.str(key)
	if ok && s == "" {
		t.fault(key, "it is empty", help)
		return "", false
	}
	return s, ok
}

// integer is one between least and most, or otherwise the default.
func (t *table) integer(key string, otherwise, least, most int) int {
	v, ok := t.value(key)
	if !ok {
		return otherwise
	}
	help := fmt.Sprintf("write a whole number from %d to %d", least, most)
	n, ok := v.(int64)
	switch {
	case !ok:
		if _, text := v.(string); text {
			help += ", without quotes"
		}
		t.wrongType(key, v, "an integer", help)
	case n < int64(least) || n > int64(most):
		t.fault(key, fmt.Sprintf("%d is out of range", n), help)
	default:
		return int(n)
	}
	return otherwise
}

// boolean is true or false, or otherwise the default.
func (t *table) boolean(key string, otherwise bool) bool {
	v, ok := t.value(key)
	if !ok {
		return otherwise
	}
	b, ok := v.(bool)
	if !ok {
		help := "write true or false"
		if _, text := v.(string); text {
			help += ", without quotes"
		}
		t.wrongType(key, v, "a boolean", help)
		return otherwise
	}
	return b
}

// oneOf is one of the words, or otherwise the default.
func (t *table) oneOf(key, otherwise string, words ...string) string {
	s, ok := t.str(key)
	if !ok {
		return otherwise
	}
	if !slices.Contains(words, s) {
		t.fault(key, fmt.Sprintf("%q is none of %s", shorten(s), strings.Join(words, ", ")), "write one of them")
		return otherwise
	}
	return s
}

// sub is the table under key; an empty one where there is none.
func (t *table) sub(key string) *table { return t.under(&table{f: t.f, path: t.at(key)}, key) }

// secrets is sub for a table whose values nobody is to read in a fault.
func (t *table) secrets(key string) *table {
	return t.under(&table{f: t.f, path: t.at(key), secret: true}, key)
}

func (t *table) under(s *table, key string) *table {
	v, ok := t.value(key)
	if !ok {
		return s
	}
	help := "write [" + bare(s.path) + "] and its keys below it"
	switch m := v.(type) {
	case map[string]any:
		s.m = m
	case []map[string]any:
		t.fault(key, "it is a table, and is written as a list of tables", "write ["+bare(s.path)+"] with one pair of brackets")
		s.broken = true
	default:
		(&table{f: t.f, path: t.path, secret: s.secret}).wrongType(key, v, "a table", help)
		s.broken = true
	}
	return s
}

// list is the tables of an array of tables, which has at most most.
func (t *table) list(key string, most int) []*table {
	v, ok := t.value(key)
	if !ok {
		return nil
	}
	help := "write [[" + bare(t.at(key)) + "]] with two pairs of brackets"
	var entries []any
	switch m := v.(type) {
	case []map[string]any:
		for _, entry := range m {
			entries = append(entries, entry)
		}
	case []any: // tables written inline, in an array
		entries = m
	case map[string]any:
		t.fault(key, "it is a list of tables, and is written as one table", help)
	default:
		t.wrongType(key, v, "a list of tables", help)
	}
	if len(entries) > most {
		t.fault(key, fmt.Sprintf("%d of them; at most %d", len(entries), most), "declare fewer")
		entries = entries[:most]
	}
	var all []*table
	for i, entry := range entries {
		path := element(t.at(key), i)
		m, isTable := entry.(map[string]any)
		if !isTable {
			t.f.add(path, "it must be a table, and this is "+kindOf(entry), help)
			continue
		}
		all = append(all, &table{f: t.f, path: path, m: m})
	}
	return all
}

// refuse files a fault for a key that has gone.
func (t *table) refuse(key, problem, help string) {
	if t.has(key) {
		t.fault(key, problem, help)
		delete(t.m, key)
	}
}

// done files a fault for every key that nothing has asked for.
func (t *table) done() {
	known := slices.Sorted(slices.Values(t.known))
	for _, key := range slices.Sorted(maps.Keys(t.m)) {
		if slices.Contains(known, key) {
			continue
		}
		problem, help := "unknown key", ""
		if right := spelling(key, known); right != "" && t.has(right) {
			problem, help = fmt.Sprintf("unknown key, and %s is given too", right), fmt.Sprintf("keys are in lower case: keep %s alone", right)
		} else if !t.f.full() { // a suggestion takes a while, and nobody would see it
			help = suggestion(key, known, t.f.places)
		}
		t.fault(key, problem, help)
	}
}

// bare is a path without indices, as in a table's header.
func bare(path string) string {
	var b strings.Builder
	depth := 0
	for _, r := range path {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case depth == 0:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// kindOf names a value and its type in TOML's words.
func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("the string %q", shorten(v))
	case int64:
		return fmt.Sprintf("the integer %d", v)
	case float64:
		return fmt.Sprintf("the float %v", v)
	case bool:
		return fmt.Sprintf("the boolean %t", v)
	default:
		return nameOf(v)
	}
}

// nameOf is kindOf without the value.
func nameOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	case []any:
		return "an array"
	default:
		return "a date or time"
	}
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "..."
	}
	return s
}
