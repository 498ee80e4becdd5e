package bootstrap

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// G1: a value of several lines comes line by line, and in an error as a whole; none of it gets through, however it is
// chunked, and what is no secret does.
func TestRedactLinesG1(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := strings.Join(rapid.SliceOfN(rapid.StringMatching(`[a-c]{1,9}`), 1, 6).Draw(t, "secret"), rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "end"))
		if len(secret) < secretMin {
			return
		}
		r := newRedactor(map[string]string{"A": secret, "B": "x"})
		text := "before x\n" + secret + "\nafter x\n"
		l, got := collect(r)
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			_, _ = l.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		l.end()
		if told := strings.Join(*got, "\n"); strings.ContainsAny(strings.NewReplacer("before", "", "after", "").Replace(told), "abc") {
			t.Fatalf("of %q: %q", secret, told)
		}
		for _, want := range []string{"before x", "after x"} {
			if !strings.Contains(strings.Join(*got, "\n"), want) {
				t.Fatalf("%q is no secret: %q", want, *got)
			}
		}
		for _, told := range []string{r.text("in " + secret + " there"), r.text(secret), r.err(errors.New("in " + secret + ": no")).Error()} {
			if strings.Contains(told, secret) {
				t.Fatalf("of %q: %q", secret, told)
			}
		}
	})
}

// What callers ask of an error stays true of one that has been redacted.
func TestRedactedErrors(t *testing.T) {
	r := newRedactor(map[string]string{"A": "secret-1"})
	err := r.err(fmt.Errorf("secret-1: %w", fs.ErrNotExist))
	require.EqualError(t, err, "***: file does not exist")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, fs.ErrNotExist, r.err(fs.ErrNotExist))
	step := &StepError{VM: "web-0", Step: "verify", Err: r.err(&guestStatus{"secret-1"})}
	require.NotContains(t, step.Error(), "secret")
	require.Equal(t, "look", step.Hint())
}

type guestStatus struct{ said string }

func (g *guestStatus) Error() string { return g.said }
func (*guestStatus) Hint() string    { return "look" }

// G1: the digest stands where others may read it. Without the key nobody can try out which value gives it.
func TestDigestIsKeyed(t *testing.T) {
	script := filepath.Join(t.TempDir(), "run.sh")
	require.NoError(t, os.WriteFile(script, []byte("echo\n"), 0o600))
	digest := func(key, pin string) string {
		d, err := Plan{Script: script, Env: map[string]string{"PIN": pin}, Key: []byte(key)}.Digest()
		require.NoError(t, err)
		return d
	}
	require.Equal(t, digest("k", "1234"), digest("k", "1234"))
	require.NotEqual(t, digest("k", "1234"), digest("k", "1235"))
	require.NotEqual(t, digest("k", "1234"), digest("l", "1234"))

	// What one would reckon without it.
	plain := digester{sha256.New()}
	plain.add("castra bootstrap 1")
	require.NoError(t, plain.file("script", script))
	plain.add("env", "PIN", "1234")
	plain.add("verify", "", "")
	require.NotEqual(t, "sha256:"+hex.EncodeToString(plain.hash.Sum(nil)), digest("k", "1234"))
}
