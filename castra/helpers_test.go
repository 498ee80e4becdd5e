package castra

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
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

// freePort is a TCP port of loopback that nobody listens on now.
func freePort(t testing.TB) int {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// forward is one rule of [[vms]].
func forward(hostPort, guestPort int) string {
	return fmt.Sprintf("[[vms.port_forwards]]\nhost = %d\nguest = %d", hostPort, guestPort)
}

func portOf(t testing.TB, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}
