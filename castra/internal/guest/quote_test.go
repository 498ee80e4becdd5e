package guest

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// shells are those that are here; busybox ash is the one of small guests.
func shells() [][]string {
	found := [][]string{{"sh"}}
	for _, s := range [][]string{{"dash"}, {"bash"}, {"busybox", "ash"}} {
		if _, err := exec.LookPath(s[0]); err == nil {
			found = append(found, s)
		}
	}
	return found
}

// G2: byte for byte through a shell. Many words go through one shell, since
// starting one takes longer than reading a word.
func TestQuoteG2(t *testing.T) {
	for _, shell := range shells() {
		t.Run(strings.Join(shell, " "), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				word := rapid.OneOf(
					rapid.StringOf(rapid.SampledFrom([]rune("'\"\\$`!*?[]{}()<>|&;#~= \t\n\r-aé\u202e"))),
					rapid.Map(rapid.SliceOf(rapid.ByteRange(1, 255)), func(b []byte) string { return string(b) }),
				)
				words := rapid.SliceOfN(word, 100, 100).Draw(t, "words")
				quoted := make([]string, len(words))
				for i, w := range words {
					quoted[i] = Quote(w)
				}
				script := `printf '%s\0' ` + strings.Join(quoted, " ")
				// Twice, as Sh does: the login shell unpacks a script for the inner one.
				for _, line := range []string{script, Sh(script)} {
					out, err := exec.Command(shell[0], append(slices.Clone(shell[1:]), "-c", line)...).Output()
					if err != nil {
						t.Fatal(err)
					}
					got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
					if !slices.Equal(words, got) {
						t.Fatalf("sent %q, got %q", words, got)
					}
				}
			})
		})
	}
}

func TestSh(t *testing.T) {
	require.Equal(t, `exec sh -c 'echo "$1"' sh 'it'\''s' ''`, Sh(`echo "$1"`, "it's", ""))
}
