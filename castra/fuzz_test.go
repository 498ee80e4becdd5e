package castra

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

// FuzzPlace: of an argument of copy, what stands before the first colon is a VM, or the whole is a path of this computer as written.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"web:/srv", "web:", ":x", "./a:b", "../a:b", "/a:b", "a/b:c", "C:\\x", "web-0:a:b", "", ":", "\x00:x", "-rf", "web:-rf", ".:x", "..:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := parsePlace(s)
		if p.vm == "" {
			require.Equal(t, s, p.path)
			return
		}
		require.NotEmpty(t, p.path)
		require.False(t, strings.ContainsAny(p.vm, ":/\\") || strings.HasPrefix(p.vm, "."), "%q", p.vm)
		require.True(t, s == p.vm+":"+p.path || s == p.vm+":" && p.path == ".")
	})
}

// FuzzJournal: whatever stands in the stream of events, logs shows lines of the VMs that it was asked for alone, and none of its
// control characters.
func FuzzJournal(f *testing.F) {
	var line bytes.Buffer
	require.NoError(f, json.NewEncoder(&line).Encode(event.Record{Workspace: "x-0", Event: event.BootstrapOutput{VM: "web-0", Run: "r", Stream: "stdout", Line: "a\x1b[2Jb"}}))
	for _, s := range []string{line.String(), strings.Replace(line.String(), "web-0", "db-0", 1), `{"type":"bootstrap.output"}`, `{"type":"bootstrap.started","vm":1}`, `"bootstrap.`, "", "null\n", `{"type":"bootstrap.failed","vm":"web-0","error":"\u001b]52;c;x\u0007"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		l := &logWriter{w: &out, o: LogOptions{Tail: 10}}
		l.bootstraps([]string{"web-0"})
		for text := range strings.SplitSeq(string(data), "\n") {
			l.event(text)
		}
		require.NoError(t, l.err)
		for shown := range strings.Lines(out.String()) {
			require.NotContains(t, shown, "\x1b")
			require.NotContains(t, shown, "db-0 bootstrap")
		}
	})
}
