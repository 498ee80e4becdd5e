package bootstrap

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	lineMax      = 8 << 10   // bytes of a line that are kept
	eventsMax    = 1 << 20   // bytes of output that become events, for each run
	tailMax      = 200       // lines in the log
	tailBytesMax = 256 << 10 // bytes of them
	secretMin    = 6         // shorter values would blot out ordinary words
	blot         = "***"
	noopLine     = "Castra:noop"
)

// redactor blots out the values of the environment, and each line of those
// that have several. A line of these that is too short to be looked for
// everywhere is blotted out where it is a whole line of text.
type redactor struct {
	replacer *strings.Replacer
	longest  int
	short    map[string]bool
}

func newRedactor(env map[string]string) *redactor {
	r := &redactor{short: map[string]bool{}}
	var secrets []string
	for _, value := range env {
		if len(value) < secretMin {
			continue
		}
		for _, s := range append(strings.Split(value, "\n"), value) {
			for _, s := range []string{s, strings.TrimRight(s, "\r")} {
				switch {
				case len(s) >= secretMin && !slices.Contains(secrets, s):
					secrets = append(secrets, s)
				case s != "" && len(s) < secretMin:
					r.short[s] = true
				}
			}
		}
	}
	// The replacer takes the first that fits, so the longest must be first.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, blot)
		if !strings.Contains(s, "\n") {
			r.longest = max(r.longest, len(s))
		}
	}
	r.replacer = strings.NewReplacer(pairs...)
	return r
}

func (r *redactor) text(s string) string {
	lines := strings.Split(r.replacer.Replace(s), "\n")
	for i, line := range lines {
		if r.short[strings.TrimRight(line, "\r")] {
			lines[i] = blot
		}
	}
	return strings.Join(lines, "\n")
}

// err says the same without the values.
func (r *redactor) err(err error) error {
	if text := r.text(err.Error()); text != err.Error() {
		return &redacted{err, text}
	}
	return err
}

type redacted struct {
	error
	text string
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.error }

// lines cuts one stream into lines, redacts them, and hands each on.
type lines struct {
	redactor *redactor
	take     func(line string)
	buffer   bytes.Buffer
	cut      bool // the line is longer than the buffer may be
}

func (l *lines) Write(p []byte) (int, error) {
	for chunk := range bytes.Lines(p) {
		text, ended := bytes.CutSuffix(chunk, []byte("\n"))
		room := lineMax + l.redactor.longest - l.buffer.Len()
		l.cut = l.cut || len(text) > room
		l.buffer.Write(text[:min(len(text), room)])
		if ended {
			l.flush()
		}
	}
	return len(p), nil
}

// end hands on a last line that has no end.
func (l *lines) end() {
	if l.buffer.Len() > 0 {
		l.flush()
	}
}

func (l *lines) flush() {
	raw := strings.TrimSuffix(l.buffer.String(), "\r")
	line := l.redactor.text(raw)
	if l.cut {
		// What was cut off may have been the rest of a secret.
		line = line[:max(0, len(line)-max(0, l.redactor.longest-1))]
	}
	if l.cut || len(line) > lineMax {
		line = strings.ToValidUTF8(line[:min(len(line), lineMax)], string(utf8.RuneError)) + " [cut]"
	}
	l.buffer.Reset()
	l.cut = false
	l.take(line)
}

// tail keeps the last lines.
type tail struct {
	lines []string
	bytes int
}

func (t *tail) add(line string) {
	t.lines = append(t.lines, line)
	t.bytes += len(line)
	for len(t.lines) > tailMax || t.bytes > tailBytesMax {
		t.bytes -= len(t.lines[0])
		t.lines = t.lines[1:]
	}
}

func (t *tail) last(n int) []string {
	return slices.Clone(t.lines[max(0, len(t.lines)-n):])
}
