package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sanitize shows what could steer a terminal or reorder a line, as escapes:
// control characters and stray bytes as \x1b, C1 controls, bidirectional and
// zero-width characters as \u202e. Newline and tab are kept, and so is
// everything printable; clean text comes back unchanged.
func Sanitize(s string) string {
	clean := true
	for _, r := range s {
		if unsafeRune(r) || r == utf8.RuneError {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, size := 0, 0; i < len(s); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unsafeRune(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// Clean gives a writer to w that sanitises. Each Write is a whole text: its end
// does not cut a character.
func Clean(w io.Writer) io.Writer { return clean{w} }

type clean struct{ w io.Writer }

func (c clean) Write(p []byte) (int, error) {
	if _, err := io.WriteString(c.w, Sanitize(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// unsafeRune tells controls (Cc), invisible format characters (Cf: bidi,
// zero-width, tags) and Unicode's own line and paragraph separators.
func unsafeRune(r rune) bool {
	return r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}
