package report

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

func inZone(t *testing.T, offset int) {
	before := time.Local
	time.Local = time.FixedZone("test", offset)
	t.Cleanup(func() { time.Local = before })
}

// One line of every kind, from the examples that package event publishes.
func TestHistory(t *testing.T) {
	inZone(t, 5*3600+1800)
	file, err := os.ReadFile("../../event/testdata/examples.jsonl")
	require.NoError(t, err)
	var b strings.Builder
	var kinds []event.Kind
	for example := range strings.Lines(string(file)) {
		var r event.Record
		require.NoError(t, json.Unmarshal([]byte(example), &r))
		kinds = append(kinds, r.Event.Kind())
		got := History(r)
		words, found := strings.CutPrefix(got, "2026-11-25 18:33:05.007  "+pad(or(r.Event.Subject(), "-"), 8)+"  "+pad(string(r.Event.Kind()), 24)+"  ")
		require.True(t, found, got)
		require.NotEmpty(t, words, "%s says nothing", r.Event.Kind())
		b.WriteString(got + "\n")
	}
	require.Equal(t, event.Kinds(), kinds)
	golden(t, "history", b.String())
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func TestHistoryIsOneCleanLine(t *testing.T) {
	evil := "a\x1b[2Jb\u202e\n2026-11-25 forged\tc\r\n"
	for _, e := range []event.Event{
		event.Message{VM: evil, Level: "error", Text: evil, Hint: evil},
		event.BootstrapOutput{VM: evil, Stream: evil, Line: evil},
		event.CommandFailed{Error: evil},
		event.CopyProgress{VM: evil, Source: evil, Target: evil},
		event.Summary{Text: evil},
	} {
		got := History(event.Record{Time: start, Event: e})
		require.NotContains(t, got, "\n", "%s", e.Kind())
		require.Equal(t, Sanitize(got), got, "%s", e.Kind())
		require.Contains(t, got, `a\x1b[2Jb\u202e\n2026-11-25 forged\tc`, "%s", e.Kind())
	}
}

// Every kind is known to the text and to History, filled or not, and none of it
// makes a panic.
func TestEveryKindIsKnown(t *testing.T) {
	require.Empty(t, History(event.Record{Time: start}))
	for _, kind := range event.Kinds() {
		var rec event.Record
		line := fmt.Sprintf(`{"time":"2026-11-25T13:00:00Z","type":%q,"workspace":"w"}`, kind)
		require.NoError(t, rec.UnmarshalJSON([]byte(line)))
		require.Contains(t, History(rec), string(kind))
		for _, o := range []TextOptions{{}, {Verbose: true}, {Color: true, Width: 1}} {
			require.NotPanics(t, func() { NewText(&strings.Builder{}, o).Report(rec) }, "%s", kind)
		}
	}
}
