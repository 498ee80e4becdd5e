package soak

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBars(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bars")
	bars, err := read(file)
	require.NoError(t, err)
	require.Empty(t, bars)
	require.NoError(t, os.WriteFile(file, []byte(`{"id":"B10","what":"ten","sense":"at least","asked":10,"reached":10,"met":true}
{"id":"B2","what":"two","sense":"at most","asked":0,"reached":1}
{"id":"A1","what":"one","sense":"at least","asked":500,"reached":499}
{"id":"B2","what":"time","sense":"at most","asked":2.5,"reached":0.25,"unit":" s","met":true}
`), 0o600))
	bars, err = read(file)
	require.NoError(t, err)
	var out bytes.Buffer
	require.Equal(t, 2, print(&out, bars))
	require.Equal(t, `A1   one   499     asked: at least 500   NOT REACHED
B2   two   1       asked: at most 0      NOT REACHED
B2   time  0.25 s  asked: at most 2.5 s  
B10  ten   10      asked: at least 10    
`, out.String())
	require.NoError(t, os.WriteFile(file, []byte("half\n"), 0o600))
	_, err = read(file)
	require.ErrorContains(t, err, `"half\n"`)
}

func TestFuzzTargetsAreFound(t *testing.T) {
	t.Chdir("../..")
	targets, err := fuzzTargets(t.Context())
	require.NoError(t, err)
	require.Contains(t, targets, target{"castra/internal/qmp", "FuzzStream"})
}
