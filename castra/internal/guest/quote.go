package guest

import "strings"

// Quote makes s one word for a POSIX shell, byte for byte. A shell cannot hold
// a NUL byte, so s must not have one.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Sh is a command line that runs script with the given arguments ($1, $2...)
// under the guest's POSIX shell, whatever the user's login shell is.
func Sh(script string, args ...string) string {
	var b strings.Builder
	b.WriteString("exec sh -c ")
	b.WriteString(Quote(script))
	b.WriteString(" sh")
	for _, arg := range args {
		b.WriteString(" ")
		b.WriteString(Quote(arg))
	}
	return b.String()
}
