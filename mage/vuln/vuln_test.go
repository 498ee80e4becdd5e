package vuln

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCalled(t *testing.T) {
	const config = `{"config":{"protocol_version":"v1.0.0"}}`
	message := func(id, module, function string) string {
		return `{"finding":{"osv":"` + id + `","fixed_version":"v1.2.3","trace":[{"module":"` + module + `","version":"v1.0.0","package":"p","receiver":"*T","function":"` + function + `"}]}}` + "\n"
	}
	got, err := called(strings.NewReader(config +
		message("GO-2", "stdlib", "Read") + message("GO-1", "example.com/m", "Write") +
		message("GO-1", "example.com/m", "Write") + message("GO-3", "example.com/m", "") + `{"progress":{}}`))
	require.NoError(t, err)
	require.Equal(t, []result{
		{"GO-1: p.T.Write of example.com/m v1.0.0, mended in v1.2.3", false},
		{"GO-2: p.T.Read of stdlib v1.0.0, mended in v1.2.3", true},
	}, got)
	for _, bad := range []string{"", "{}", config + "{", "text"} {
		_, err := called(strings.NewReader(bad))
		require.Error(t, err, bad)
	}
}
