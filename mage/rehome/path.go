package rehome

import (
	"fmt"
	"regexp"
	"strings"
)

// PathError says: the new path cannot be that of a module.
type PathError struct{ Path, Problem string }

func (e *PathError) Error() string { return fmt.Sprintf("module path %q: %s", e.Path, e.Problem) }

// Hint says what to do next.
func (e *PathError) Hint() string {
	return "write the address of the repository without its scheme, such as github.com/you/castra"
}

var (
	host    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*(\.[a-z0-9-]*[a-z0-9])+$`)
	element = regexp.MustCompile(`^[A-Za-z0-9_~-]([A-Za-z0-9._~-]*[A-Za-z0-9_~-])?$`)
	badEnd  = regexp.MustCompile(`/v(0[0-9]*|1)$`)
	// reserved are names that Windows cannot have as files, with any suffix.
	reserved = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)`)
)

// checkPath holds a path to the rules of https://go.dev/ref/mod#go-mod-file-ident
// for a module that others can fetch.
func checkPath(path string) error {
	elements := strings.Split(path, "/")
	if !host.MatchString(elements[0]) {
		return &PathError{path, "it begins with no domain name in lower case"}
	}
	for _, e := range elements[1:] {
		if !element.MatchString(e) || reserved.MatchString(e) {
			return &PathError{path, fmt.Sprintf("%q cannot be a part of it", e)}
		}
	}
	if badEnd.MatchString(path) {
		return &PathError{path, "major versions begin with /v2"}
	}
	return nil
}
