package seed

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxExtra is how many bytes of user-data a project may add.
const MaxExtra = 1 << 20

// ExtraError says what is wrong with a project's own user-data.
type ExtraError struct {
	Line   int // counted from 1; 0 where it is about the file as a whole
	Reason string
	hint   string
}

func (e *ExtraError) Error() string {
	if e.Line == 0 {
		return "user-data " + e.Reason
	}
	return fmt.Sprintf("user-data line %d: %s", e.Line, e.Reason)
}

// Hint says what to do next.
func (e *ExtraError) Hint() string { return e.hint }

const (
	known = "begin it with #cloud-config, #cloud-config-archive, #cloud-boothook, ## template: jinja, or #! and an interpreter"
	plain = "save it as plain UTF-8 text, at most 1 MiB"
)

// kinds are the first lines that decide what cloud-init takes user-data for,
// and the content types of its parts (cloud-init's "User data formats").
// Those without a type are refused.
var kinds = []struct{ first, contentType, reason, hint string }{
	{first: "#cloud-config", contentType: "text/cloud-config"},
	{first: "#cloud-config-archive", contentType: "text/cloud-config-archive"},
	{first: "#cloud-boothook", contentType: "text/cloud-boothook"},
	{first: "## template: jinja", contentType: "text/jinja2"},
	{first: "#include", reason: "#include would fetch from addresses that nobody has checked", hint: "put what they give into the file itself"},
	{first: "#include-once", reason: "#include-once would fetch from addresses that nobody has checked", hint: "put what they give into the file itself"},
	{first: "#part-handler", reason: "#part-handler is not supported", hint: known},
	{first: "#cloud-config-jsonp", reason: "#cloud-config-jsonp could take away what lets you in", hint: "write it as #cloud-config, which is merged"},
	{first: "#upstart-job", reason: "#upstart-job is of the past", hint: "write a systemd unit by write_files in a #cloud-config"},
}

// Check tells whether extra can be a Seed's Extra, without making one. Nil is
// fine, and means that there is none; an empty file is not. Errors are
// *ExtraError.
func Check(extra []byte) error {
	if extra == nil {
		return nil
	}
	_, _, err := readExtra(extra)
	return err
}

// readExtra gives the type and the text of a project's user-data: without a
// byte-order mark and white space at its beginning, which cloud-init passes
// over when it looks for the type but a kernel that starts a script does not,
// and with lines ended by \n alone, as cloud-init itself ends those of scripts.
func readExtra(extra []byte) (contentType string, text []byte, err error) {
	if text, err = decode(extra); err != nil {
		return "", nil, err
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	body := bytes.TrimLeft(text, " \t\n")
	if len(body) == 0 {
		return "", nil, &ExtraError{Reason: "is empty", hint: known}
	}
	line := bytes.Count(text[:len(text)-len(body)], []byte("\n")) + 1
	first, _, _ := bytes.Cut(body, []byte("\n"))
	contentType, err = typeOf(string(first), line)
	return contentType, body, err
}

func decode(extra []byte) ([]byte, error) {
	text := bytes.TrimPrefix(extra, []byte("\xef\xbb\xbf"))
	lineAt := func(at int) int { return bytes.Count(text[:at], []byte("\n")) + 1 }
	switch {
	case len(extra) > MaxExtra:
		return nil, &ExtraError{Reason: fmt.Sprintf("has %d bytes, more than 1 MiB", len(extra)), hint: "fetch large files from the guest, or copy them by bootstrap"}
	case bytes.HasPrefix(text, []byte("\x1f\x8b")):
		return nil, &ExtraError{Reason: "is compressed by gzip", hint: plain}
	case bytes.HasPrefix(text, []byte("\xff\xfe")), bytes.HasPrefix(text, []byte("\xfe\xff")):
		return nil, &ExtraError{Reason: "is UTF-16", hint: plain}
	}
	if at := bytes.IndexByte(text, 0); at >= 0 {
		return nil, &ExtraError{Line: lineAt(at), Reason: "has a NUL byte, so it is no text", hint: plain}
	}
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size == 1 {
			return nil, &ExtraError{Line: lineAt(at), Reason: fmt.Sprintf("has the byte 0x%02x, which is not UTF-8", text[at]), hint: plain}
		}
		at += size
	}
	return text, nil
}

// typeOf is by the first line, without regard to letter case, as cloud-init
// has it. Only it takes #cloud-configuration for #cloud-config.
func typeOf(first string, line int) (string, error) {
	lower := strings.ToLower(first)
	if strings.HasPrefix(lower, "#!") {
		return "text/x-shellscript", nil
	}
	for _, k := range kinds {
		rest, ok := strings.CutPrefix(lower, k.first)
		switch {
		case !ok || strings.TrimLeft(rest, " \t") == rest && rest != "":
		case k.contentType != "":
			return k.contentType, nil
		default:
			return "", &ExtraError{Line: line, Reason: k.reason, hint: k.hint}
		}
	}
	if strings.HasPrefix(lower, "mime-version:") || strings.HasPrefix(lower, "content-type:") || strings.HasPrefix(lower, "from ") {
		return "", &ExtraError{Line: line, Reason: "a MIME message cannot be a part of Castra's own", hint: "write its parts as the entries of one #cloud-config-archive"}
	}
	return "", &ExtraError{Line: line, Reason: fmt.Sprintf("%.32q does not tell what it is", first), hint: known}
}

// boundary cannot be in a part: neither base64 nor what we write has a line
// that begins with two dashes.
const boundary = "castra-user-data"

// How a part is put to those before it (cloud-init's "Merging user data
// sections"; the header of the later part decides, unless its text has a
// merge_how of its own).
const (
	adding    = "list(append)+dict(no_replace,recurse_list)+str()"
	replacing = "dict(replace)+list()+str()"
)

// multipart lays the project's part between ours. The logins go first, so that
// its lists are added to ours; they come again because a merge_how of its own
// replaces lists, as cloud-init itself does with the entries of an archive,
// and it takes a user that is named twice for one. The settings come last and
// replace, so nothing can take the host key away. Ours are plain text, for
// guests that read line by line; the project's is in base64, so that none of
// its lines is taken for one of ours.
func (s Seed) multipart(contentType string, extra []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=%q\n", boundary)
	part := func(contentType, name, merge, encoding string, text []byte) {
		fmt.Fprintf(&b, "\n--%s\nContent-Type: %s; charset=\"utf-8\"\nContent-Transfer-Encoding: %s\n", boundary, contentType, encoding)
		fmt.Fprintf(&b, "Content-Disposition: attachment; filename=%q\nMerge-Type: %s\n\n", name, merge)
		b.Write(text)
	}
	ours := func(name, merge string, text []byte) {
		part("text/cloud-config", name, merge, "7bit", append([]byte("#cloud-config\n"), text...))
	}
	ours("castra-logins", adding, s.logins())
	part(contentType, "project", adding, "base64", wrapped(extra))
	ours("castra-logins-again", adding, s.logins())
	ours("castra-settings", replacing, s.settings())
	fmt.Fprintf(&b, "\n--%s--\n", boundary)
	return b.Bytes()
}

// wrapped is base64 in lines of 76 characters, the most that MIME allows.
func wrapped(data []byte) []byte {
	var b bytes.Buffer
	text := base64.StdEncoding.EncodeToString(data)
	for len(text) > 76 {
		b.WriteString(text[:76] + "\n")
		text = text[76:]
	}
	b.WriteString(text + "\n")
	return b.Bytes()
}
