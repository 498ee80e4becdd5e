package fetch

import (
	"net/url"
	"regexp"
)

// redact is u as it may be shown: without user information, and without the
// values of its query, which carry the access of signed URLs.
func redact(u *url.URL) string {
	shown := *u
	shown.User = nil
	shown.Fragment, shown.RawFragment = "", ""
	if shown.RawQuery != "" {
		shown.RawQuery = "..."
	}
	return shown.String()
}

var userinfo = regexp.MustCompile(`//[^\s"]*@`)

// scrubbed is an error of the HTTP or proxy code whose text names a URL with
// its user information.
type scrubbed struct {
	text string
	err  error
}

func (e *scrubbed) Error() string { return e.text }
func (e *scrubbed) Unwrap() error { return e.err }

func scrub(err error) error {
	if text := err.Error(); userinfo.MatchString(text) {
		return &scrubbed{userinfo.ReplaceAllString(text, "//"), err}
	}
	return err
}

// bare is u without user information, which is not for a file.
func bare(u *url.URL) string {
	b := *u
	b.User = nil
	return b.String()
}
