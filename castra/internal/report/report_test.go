package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

func TestSanitize(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"plain ÄÖ 日本 🙂":                "plain ÄÖ 日本 🙂",
		"a\tb\nc":                      "a\tb\nc",
		"\x1b[31mred\x1b[0m":           `\x1b[31mred\x1b[0m`,
		"\x1b]52;c;aGk=\x07":           `\x1b]52;c;aGk=\x07`,
		"over\rwritten\b\x7f\x00":      `over\x0dwritten\x08\x7f\x00`,
		"\u009b2J":                     `\u009b2J`,
		"\x9b2J \xff\xc3":              `\x9b2J \xff\xc3`,
		"a\u202eb\u2066c\u200fd\u061c": `a\u202eb\u2066c\u200fd\u061c`,
		"z\u200bw\u200d\ufeff\u00ad":   `z\u200bw\u200d\ufeff\u00ad`,
		"\u2028\u2029":                 `\u2028\u2029`,
		"\U000e0041":                   `\U000e0041`,
		"written \ufffd stays":         "written \ufffd stays",
	} {
		require.Equal(t, want, Sanitize(in), "%q", in)
	}
}

func FuzzSanitize(f *testing.F) {
	for _, s := range []string{"plain", "a\tb\n", "\x1b[2J", "\x9b\xff", "\u202e\u200b", "\U000e0041", "ÄÖ 日本"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Sanitize(s)
		require.True(t, utf8.ValidString(got))
		for _, r := range got {
			require.False(t, unsafeRune(r), "%q gives %q", s, got)
			require.False(t, (r < ' ' && r != '\n' && r != '\t') || (r >= 0x7f && r < 0xa0), "%q gives %q", s, got)
		}
		require.Equal(t, got, Sanitize(got), "clean text comes back unchanged")
		require.Equal(t, strings.Count(s, "\n"), strings.Count(got, "\n"))
		require.GreaterOrEqual(t, len(got), len(s))
	})
}

func TestJSONLines(t *testing.T) {
	evil := "a\x1b[2J\x7f\u009b\u202e\U000e0041<b>&\tü\n"
	var b bytes.Buffer
	r := NewJSON(&b)
	rec := event.Record{Time: start, Workspace: "w", Event: event.BootstrapOutput{VM: "web-0", Run: "r", Stream: "stdout", Line: evil}}
	r.Report(rec)
	r.Report(event.Record{}) // no event: nothing to write
	r.Report(rec)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	require.Len(t, lines, 2)
	require.Equal(t, `{"time":"2026-11-25T13:00:00.000Z","type":"bootstrap.output","workspace":"w","vm":"web-0",`+
		`"run":"r","stream":"stdout","line":"a\u001b[2J\u007f\u009b\u202e\udb40\udc41<b>&\tü\n"}`, lines[0])
	require.Equal(t, Sanitize(lines[0]), lines[0], "safe on a terminal")
	var back event.Record
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &back))
	require.Equal(t, rec, back)
}

// Several Emitters may share a reporter: two workspaces that go down at once.
func TestSharedReporters(t *testing.T) {
	var text, lines bytes.Buffer
	rs := []event.Reporter{NewText(&text, TextOptions{}), NewJSON(&lines)}
	var wg sync.WaitGroup
	for range 4 {
		e := event.NewEmitter("w", nil, rs...)
		wg.Go(func() {
			for range 25 {
				e.Emit(event.Message{VM: "web-0", Level: "info", Text: "hello"})
			}
		})
	}
	wg.Wait()
	require.Equal(t, strings.Repeat("web-0  hello\n", 100), text.String())
	require.Equal(t, 100, strings.Count(lines.String(), "\n"))
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                            "0 ms",
		0:                                       "0 ms",
		999 * time.Microsecond:                  "0 ms",
		120 * time.Millisecond:                  "120 ms",
		499 * time.Millisecond:                  "499 ms",
		900 * time.Millisecond:                  "0.9 s",
		time.Second:                             "1 s",
		5349 * time.Millisecond:                 "5.3 s",
		59949 * time.Millisecond:                "59.9 s",
		59950 * time.Millisecond:                "1 m 00 s",
		65 * time.Second:                        "1 m 05 s",
		59*time.Minute + 59*time.Second:         "59 m 59 s",
		59*time.Minute + 59600*time.Millisecond: "1 h 00 m",
		2*time.Hour + 3*time.Minute:             "2 h 03 m",
	} {
		require.Equal(t, want, Duration(d), "%s", d)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "0 B", 0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1 KiB", 12800: "12.5 KiB", 512 << 20: "512 MiB",
		2 << 30: "2 GiB", 1<<20 - 1: "1 MiB", 1<<63 - 1: "8 EiB",
	} {
		require.Equal(t, want, Bytes(n), "%d", n)
	}
}
