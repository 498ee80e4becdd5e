package castra

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

// readRecords reads events written as JSON lines.
func readRecords(t testing.TB, r io.Reader) []event.Record {
	t.Helper()
	var records []event.Record
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var rec event.Record
		require.NoError(t, json.Unmarshal(lines.Bytes(), &rec), lines.Text())
		records = append(records, rec)
	}
	require.NoError(t, lines.Err())
	return records
}

// exec runs a command in a guest and gives its output.
func (w *world) exec(vm, line, stdin string) (string, error) {
	var out bytes.Buffer
	err := w.open().Exec(w.Context(), vm, Command{Line: line, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &out})
	return out.String(), err
}
