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
	f     *faults
	path  string
	m     map[string]any
	known []string
}

func (t *table) at(key string) string { return join(t.path, key) }

// value takes a key off the table.
func (t *table) value(key string) (any, bool) {
	t.known = append(t.known, key)
	v, ok := t.m[key]
	return v, ok
}

func (t *table) fault(key, problem, help string) { t.f.add(t.at(key), problem, help) }

func (t *table) wrongType(key string, v any, want string) {
	t.fault(key, fmt.Sprintf("it must be %s, and this is %s", want, kindOf(v)), "")
}

// str is a string, or otherwise the default.
func (t *table) str(key, otherwise string) string {
	v, ok := t.value(key)
	if !ok {
		return otherwise
	}
	s, ok := v.(string)
	switch {
	case !ok:
		t.wrongType(key, v, "a string")
	case strings.ContainsRune(s, 0):
		t.fault(key, "it holds a NUL character", "remove the character")
	default:
		return s
	}
	return otherwise
}

// integer is one between least and most, or otherwise the default.
func (t *table) integer(key string, otherwise, least, most int) int {
	v, ok := t.value(key)
	if !ok {
		return otherwise
	}
	n, ok := v.(int64)
	if !ok {
		t.wrongType(key, v, "an integer")
		return otherwise
	}
	if n < int64(least) || n > int64(most) {
		t.fault(key, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("write a number from %d to %d", least, most))
		return otherwise
	}
	return int(n)
}

// oneOf is one of the words, or otherwise the first.
func (t *table) oneOf(key string, words ...string) string {
	s := t.str(key, words[0])
	if !slices.Contains(words, s) {
		t.fault(key, fmt.Sprintf("%q is none of %s", s, strings.Join(words, ", ")), "write one of them")
		return words[0]
	}
	return s
}

// sub is the table under key; an empty one where there is none.
func (t *table) sub(key string) *table {
	s := &table{f: t.f, path: t.at(key)}
	switch v, ok := t.value(key); m := v.(type) {
	case map[string]any:
		s.m = m
	case []map[string]any:
		t.fault(key, "it is a table, and is written as a list of tables", "write ["+bare(t.at(key))+"] with one pair of brackets")
	default:
		if ok {
			t.wrongType(key, v, "a table")
		}
	}
	return s
}

// list is the tables of an array of tables.
func (t *table) list(key string) []*table {
	var all []*table
	switch v, ok := t.value(key); m := v.(type) {
	case []map[string]any:
		for i, entry := range m {
			all = append(all, &table{f: t.f, path: fmt.Sprintf("%s[%d]", t.at(key), i), m: entry})
		}
	case []any: // tables written inline, in an array
		for i, entry := range m {
			path := fmt.Sprintf("%s[%d]", t.at(key), i)
			sub, isTable := entry.(map[string]any)
			if !isTable {
				t.f.add(path, "it must be a table, and this is "+kindOf(entry), "")
			}
			all = append(all, &table{f: t.f, path: path, m: sub})
		}
	case map[string]any:
		t.fault(key, "it is a list of tables, and is written as one table", "write [["+bare(t.at(key))+"]] with two pairs of brackets")
	default:
		if ok {
			t.wrongType(key, v, "a list of tables")
		}
	}
	return all
}

// strings is a table of strings, for env.
func (t *table) strings(key string) map[string]string {
	sub := t.sub(key)
	all := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(sub.m)) {
		all[name] = sub.str(name, "")
	}
	return all
}

// refuse files a fault for a key that has gone or has yet to come.
func (t *table) refuse(key, problem, help string) {
	if _, ok := t.value(key); ok {
		t.fault(key, problem, help)
	}
}

// later are keys of the schema that this version does not know what to do
// with: to pass over one would be to ignore the user.
func (t *table) later(keys ...string) {
	for _, key := range keys {
		t.refuse(key, "this version of Castra does not support it yet", "remove it")
	}
}

// done files a fault for every key that nothing has asked for.
func (t *table) done() {
	for _, key := range slices.Sorted(maps.Keys(t.m)) {
		if slices.Contains(t.known, key) {
			continue
		}
		help := "known here: " + strings.Join(slices.Sorted(slices.Values(t.known)), ", ")
		if near := nearest(key, t.known); near != "" {
			help = fmt.Sprintf("did you mean %s?", near)
		}
		t.fault(key, "unknown key", help)
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

// kindOf names a value's type in TOML's words.
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
