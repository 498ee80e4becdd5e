package guest

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/soak"
)

// shells are those that are here; busybox ash is the one of small guests.
func shells(t *testing.T) map[string][]string {
	found := map[string][]string{}
	for _, name := range []string{"dash", "bash"} {
		if path, err := exec.LookPath(name); err == nil {
			found[name] = []string{path}
		}
	}
	if path := busybox(t); path != "" {
		found["busybox ash"] = []string{path, "ash"}
	}
	require.NotEmpty(t, found)
	return found
}

// busybox is that of PATH, or of the package that small guests are made of, where one has been; "" where there is none.
func busybox(t *testing.T) string {
	if path, err := exec.LookPath("busybox"); err == nil {
		return path
	}
	home, _ := os.UserHomeDir()
	packages, _ := filepath.Glob(filepath.Join(home, ".castra", "guests", "packages", "busybox-static_*_"+runtime.GOARCH+".deb"))
	dir := t.TempDir()
	if len(packages) == 0 || exec.CommandContext(t.Context(), "dpkg-deb", "-x", packages[0], dir).Run() != nil {
		return ""
	}
	return filepath.Join(dir, "bin", "busybox")
}

// oddWords are what shells read in more ways than one.
var oddWords = []string{
	"", "-n", "-e \\0101", "$HOME", "$(id)", "`id`", "${x:-y}", "~", "~root", "*", "[a-z]*", "{a,b}", "!!", "a=b", "'", "''", "\\'", "\\", "\n", "\r", "a\n\nb\n", "\"", "$'x'",
	"\x01\x7f\x80\xff", "\u202e", "#", " ", "\t", "&& id", "; id", "<<EOF", "\\\n", strings.Repeat("'", 500), strings.Repeat("long ", 2000),
}

// oddWord is a word of no shape in particular.
func oddWord(r *rand.Rand) string {
	if r.IntN(10) == 0 {
		return oddWords[r.IntN(len(oddWords))]
	}
	const special = "'\"\\$`!*?[]{}()<>|&;#~= \t\n\r-a\x01\xc3\xa9"
	word := make([]byte, r.IntN(40))
	for i := range word {
		if r.IntN(2) == 0 {
			word[i] = special[r.IntN(len(special))]
		} else {
			word[i] = byte(1 + r.IntN(255))
		}
	}
	return string(word)
}

// G2: byte for byte through a shell. Many words go through one shell, since
// starting one takes longer than reading a word.
func TestQuoteG2Soak(t *testing.T) {
	const batch = 200
	for name, shell := range shells(t) {
		t.Run(name, func(t *testing.T) {
			sent := 0
			for seed := range soak.N(2, 50) {
				r := rand.New(rand.NewPCG(uint64(seed), 2))
				words := make([]string, batch)
				for i := range words {
					words[i] = oddWord(r)
				}
				requireIntact(t, shell, words)
				sent += len(words)
			}
			soak.AtLeast(t, "G2", "values byte for byte through "+name, 10_000, float64(sent))
		})
	}
}

// requireIntact sends the words through the shell.
func requireIntact(t *testing.T, shell, words []string) {
	t.Helper()
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	script := `printf '%s\0' ` + strings.Join(quoted, " ")
	// Twice, as Sh does: the login shell unpacks a script for the inner one. Both come on standard input, as a word of a
	// command line holds 128 KiB at most.
	for _, line := range []string{script, `eval "$(printf %s ` + Quote(script) + `)"`} {
		cmd := exec.CommandContext(t.Context(), shell[0], append(slices.Clone(shell[1:]), "-s")...)
		cmd.Stdin = strings.NewReader(line + "\n")
		out, err := cmd.Output()
		require.NoError(t, err)
		got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		if !slices.Equal(words, got) {
			t.Fatalf("sent %q, got %q", words, got)
		}
	}
}

func TestSh(t *testing.T) {
	require.Equal(t, `exec sh -c 'echo "$1"' sh 'it'\''s' ''`, Sh(`echo "$1"`, "it's", ""))
}
