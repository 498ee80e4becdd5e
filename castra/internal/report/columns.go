package report

import (
	"strings"
	"unicode"
)

// wide are the characters that take two columns on a terminal: those of East
// Asia and the pictures.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1}, {Lo: 0x2e80, Hi: 0x303e, Stride: 1}, {Lo: 0x3041, Hi: 0xa4cf, Stride: 1},
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1}, {Lo: 0xfe30, Hi: 0xfe6f, Stride: 1},
		{Lo: 0xff00, Hi: 0xff60, Stride: 1}, {Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0x1f300, Hi: 0x1f64f, Stride: 1}, {Lo: 0x1f680, Hi: 0x1faff, Stride: 1}, {Lo: 0x20000, Hi: 0x3fffd, Stride: 1}},
}

func runeColumns(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	default:
		return 1
	}
}

// columns is the width of a clean string on a terminal.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

// pad fills up with spaces to a width.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-columns(s)))
}

// clip cuts a clean line off at a width.
func clip(s string, width int) string {
	n := 0
	for i, r := range s {
		if n += runeColumns(r); n > width {
			return s[:i]
		}
	}
	return s
}

// Shorten cuts s to a width in columns of a terminal, and shows that something is missing.
func Shorten(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	return clip(clip(s, width-3)+"...", width)
}

var oneLine = strings.NewReplacer("\n", `\n`, "\t", `\t`)

// flat makes foreign text one clean line.
func flat(s string) string {
	return oneLine.Replace(Sanitize(strings.TrimRight(strings.ReplaceAll(s, "\r\n", "\n"), "\r\n")))
}
