package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTable(t *testing.T) {
	for name, c := range map[string]struct {
		header []string
		rows   [][]string
		want   string
	}{
		"columns": {[]string{"vm", "State", "ssh"}, [][]string{
			{"web-0", "running", "root@127.0.0.1:40123"},
			{"über-0", "", "  "},
			{"x"},
			{"evil\x1b[2J", "a\tb", "y", "one more"},
		}, "" +
			"VM           STATE    SSH                   -\n" +
			"web-0        running  root@127.0.0.1:40123  -\n" +
			"über-0       -        -                     -\n" +
			"x            -        -                     -\n" +
			`evil\x1b[2J  a\tb     y                     one more` + "\n"},
		"stacked": {[]string{"vm", "forwards", "health"}, [][]string{
			{"web-0", ":40124->80\n:40125->443\r\n:40126->53/udp", "ok"},
			{"web-1", "", "ok\nsince today"},
			{"web-2", "\n:1->2\n", "\n"},
		}, "" +
			"VM     FORWARDS        HEALTH\n" +
			"web-0  :40124->80      ok\n" +
			"       :40125->443\n" +
			"       :40126->53/udp\n" +
			"web-1  -               ok\n" +
			"                       since today\n" +
			"web-2  :1->2           -\n"},
		"wide":    {[]string{"vm", "path"}, [][]string{{"日本", "a"}, {"e\u0301e\u0301", "b"}}, "VM    PATH\n日本  a\ne\u0301e\u0301    b\n"},
		"no rows": {[]string{"vm", "pid"}, nil, "VM  PID\n"},
		"nothing": {nil, nil, ""},
	} {
		var b bytes.Buffer
		require.NoError(t, Table(&b, c.header, c.rows), name)
		require.Equal(t, c.want, b.String(), name)
	}
	require.Error(t, Table(broken{}, []string{"vm"}, nil))
}

// The status of a VM with several forwards, as the door gives it, fits.
func TestTableFits80Columns(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Table(&b, []string{"vm", "state", "pid", "up", "accel", "ssh", "forwards", "health"}, [][]string{
		{"web-0", "running", "47110", "12m", "kvm", "root@127.0.0.1:40123", ":40124->80\n:40125->443\n:40126->5432", "ready"},
		{"web-1", "stopped"},
	}))
	for line := range strings.Lines(b.String()) {
		require.LessOrEqual(t, columns(strings.TrimSuffix(line, "\n")), 80, line)
	}
	require.Equal(t, 5, strings.Count(b.String(), "\n"))
}
