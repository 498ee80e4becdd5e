package report

import "unicode/utf8"

// Origin is the name of what a line comes from, filled up to width runes, for
// the front of the line. In colour, a name has the same one in every run.
func Origin(name string, width int, color bool) string {
	name = Sanitize(name)
	t := &text{o: TextOptions{Color: color}}
	return t.paint(nameColour(name), name) + pad("", width-utf8.RuneCountInString(name))
}
