package digest

import (
	"fmt"
	"strings"
)

// FormatError says: a text is no digest. It says nothing about any file.
type FormatError struct {
	Text   string // as it was given
	Reason string
}

func (e *FormatError) Error() string {
	text := e.Text
	if len(text) > quoted {
		text = text[:quoted] + "..."
	}
	return fmt.Sprintf("digest %q: %s", text, e.Reason)
}

// Hint says what to do next.
func (e *FormatError) Hint() string {
	return `write "sha512:" and 128 hex digits, or "sha256:" and 64; sha512sum FILE gives them`
}

// quoted is how many bytes of a bad text an error shows.
const quoted = 160

// digits is how many hex digits each known algorithm has.
var digits = map[string]int{SHA512: 128, SHA256: 64}

// refused names algorithms by their number of digits, for the error.
var refused = map[int]string{32: "MD5", 40: "SHA-1", 56: "SHA-224", 96: "SHA-384"}

// Parse reads a digest as people and tools write it, in upper or lower case:
// "sha512:HEX"; HEX alone, whose length then tells the algorithm; a line of
// sha512sum, "HEX  file" or "HEX *file"; a line of BSD's tools,
// "SHA512 (file) = HEX". White space, line ends and a byte order mark around
// it do not matter; the file's name is not looked at. Anything else, two lines
// and a digest of zeros too, is a *FormatError.
func Parse(s string) (Digest, error) {
	text := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(s), "\ufeff"))
	bad := func(format string, args ...any) (Digest, error) {
		return Digest{}, &FormatError{Text: s, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case text == "":
		return bad("it is empty")
	case strings.ContainsAny(text, "\r\n"):
		return bad("it has more than one line")
	}
	algorithm, sum := split(text)
	sum = strings.ToLower(sum)
	if strings.Trim(sum, "0123456789abcdef") != "" || sum == "" {
		return bad("not hex digits, nor a line with them that is known")
	}
	if algorithm == "" {
		algorithm = byLength(len(sum))
	}
	want, known := digits[algorithm]
	switch {
	case algorithm == "" && refused[len(sum)] != "":
		return bad("%d hex digits are of %s, which is not taken; sha512 and sha256 are", len(sum), refused[len(sum)])
	case algorithm == "":
		return bad("%d hex digits; sha512 has 128, sha256 has 64", len(sum))
	case !known:
		return bad("algorithm %q is not known; sha512 and sha256 are", algorithm)
	case len(sum) != want:
		return bad("%d hex digits; %s has %d", len(sum), algorithm, want)
	case strings.Trim(sum, "0") == "":
		return bad("it is all zeros, which stands for no file")
	}
	return Digest{Algorithm: algorithm, Hex: sum}, nil
}

// split finds the algorithm, in lower case and "" where it is not said, and
// what should be hex digits.
func split(text string) (algorithm, sum string) {
	if name, rest, found := strings.Cut(text, " ("); found {
		if at := strings.LastIndex(rest, ") = "); at > 0 && !strings.ContainsAny(name, ": \t") {
			return strings.ToLower(name), strings.TrimSpace(rest[at+len(") = "):])
		}
	}
	first := strings.Fields(text)[0]
	if name, _, found := strings.Cut(first, ":"); found && name != "" {
		return strings.ToLower(name), strings.TrimSpace(text[len(name)+1:])
	}
	return "", first
}

func byLength(n int) string {
	for algorithm, want := range digits {
		if n == want {
			return algorithm
		}
	}
	return ""
}
