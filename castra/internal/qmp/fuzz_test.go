package qmp

import (
	"bytes"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// sink stands in for the end that leads to SocketMonitor.
type sink struct {
	net.Conn
	lines [][]byte
}

func (s *sink) Write(p []byte) (int, error) {
	s.lines = append(s.lines, bytes.Clone(p))
	return len(p), nil
}

// FuzzStream: whatever QEMU sends, one command gets one reply or none, the
// library is handed no more than that, and the relay ends with a cause.
func FuzzStream(f *testing.F) {
	for _, stream := range []string{
		"", "\n\n", greeting, event, event + reply(`"castra-1"`, "{}"), reply(`"castra-1"`, "null"),
		reply(`"castra-1"`, "{}") + reply(`"castra-1"`, "{}"), reply(`"castra-2"`, "{}"),
		`{"error": {"class": "C", "desc": "d"}}` + "\n", `{"error": null, "return": 1}` + "\n", "[]\n", "\x00\n",
	} {
		f.Add([]byte(stream))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		out := &sink{}
		r := &relay{inner: out}
		require.NoError(t, r.expect("castra-1"))
		require.Error(t, r.fromQEMU(newLineReader(bytes.NewReader(stream))))
		require.Equal(t, r.reply != nil, len(out.lines) == 1)
		require.LessOrEqual(t, len(out.lines), 1)
		if r.reply != nil {
			require.True(t, r.reply.Return != nil || r.reply.Error != nil)
			require.LessOrEqual(t, len(out.lines[0]), maxLine)
		}
	})
}
