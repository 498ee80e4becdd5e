package image

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Fault B10: images are kept by several at once, and taken away by one alone.
func TestKeep(t *testing.T) {
	home := t.TempDir()
	brief := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	first, err := Keep(t.Context(), home)
	require.NoError(t, err)
	second, err := Keep(brief(), home)
	require.NoError(t, err)
	first()
	_, err = Alone(brief(), home)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, home)
	second()
	alone, err := Alone(brief(), home)
	require.NoError(t, err)
	_, err = Keep(brief(), home)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	alone()
	again, err := Keep(brief(), home)
	require.NoError(t, err)
	again()
}
