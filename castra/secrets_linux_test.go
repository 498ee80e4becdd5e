package castra

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/soak"
)

// canary is in every secret of these tests, and in nothing else: whatever quotes or cuts a value leaves it whole.
const canary = "kanarienvogel"

// secretShapes are values of env, as TOML.
var secretShapes = map[string]string{
	"PLAIN": `"kanarienvogel-1"`, "QUOTES": `"it's \"kanarienvogel-2\" ''"`, "NEWLINES": `"a\nkanarienvogel-3\r\n\nkanarienvogel-4\n"`,
	"DOLLARS": `"$HOME ${kanarienvogel-5} $(echo kanarienvogel-5)"`, "BACKTICKS": "\"`echo kanarienvogel-6` \\\\\"", "UNICODE": "\"größe kanarienvogel-7 \u202e日本\"",
	"LONG": `"` + strings.Repeat("kanarienvogel-8 ", 4000) + `"`, "OPTION": `"-o kanarienvogel-9,x=y"`,
}

// watchProcesses looks 200 times a second, until stop is called, for a command line of this computer that holds the canary, and for an
// environment that is not a guest's: guests are processes of this computer here.
func watchProcesses(t *testing.T) (stop func() (samples int, hits []string)) {
	t.Helper()
	done := make(chan struct{})
	var samples int
	var hits []string
	var watching sync.WaitGroup
	watching.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
			}
			samples++
			dirs, _ := filepath.Glob("/proc/[0-9]*")
			for _, dir := range dirs {
				line, _ := os.ReadFile(dir + "/cmdline")
				environ, _ := os.ReadFile(dir + "/environ")
				if bytes.Contains(line, []byte(canary)) || bytes.Contains(environ, []byte(canary)) && !bytes.Contains(environ, []byte("CASTRA_FAKE_GUEST=")) {
					hits = append(hits, fmt.Sprintf("%.200q", line))
				}
			}
		}
	})
	return func() (int, []string) {
		close(done)
		watching.Wait()
		return samples, hits
	}
}

// holding lists the files below the directories that hold the canary, by content or by name.
func holding(t *testing.T, dirs ...string) (files []string, looked int) {
	t.Helper()
	for _, dir := range dirs {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			looked++
			if strings.Contains(path, canary) || bytes.Contains(mustRead(t, path), []byte(canary)) {
				files = append(files, path)
			}
			return nil
		}))
	}
	return files, looked
}

// G1: the values of env are the script's alone, whatever they look like and however it ends: they stand in no command line, in no
// other process, in no file that Castra keeps, templates among them, and in nothing that it tells.
func TestEnvIsSecretSoak(t *testing.T) {
	var env strings.Builder
	for name, value := range secretShapes {
		fmt.Fprintf(&env, "%s = %s\n", name, value)
	}
	var told []string
	looked, samples := 0, 0
	for ending, script := range map[string]string{"well": "exit 0", "badly": "exit 3", "not verified": "exit 0"} {
		t.Run(ending, func(t *testing.T) {
			w := newWorld(t, patient)
			w.warm = "" // templates too
			received := filepath.Join(t.TempDir(), "received")
			verify := `printf 'verifies %s\n' "$PLAIN" "$LONG"`
			if ending == "not verified" {
				verify += "; exit 1"
			}
			w.configure(patient, w.bootstrapped("web", `
printf '%s|' "$PLAIN" "$QUOTES" "$NEWLINES" "$DOLLARS" "$BACKTICKS" "$UNICODE" "$LONG" "$OPTION" > `+word(received)+`
for value in "$PLAIN" "$QUOTES" "$NEWLINES" "$DOLLARS" "$BACKTICKS" "$UNICODE" "$LONG" "$OPTION"; do
	printf 'it is %s.\n' "$value"
	printf '%s\n' "$value" >&2
done
sleep 0.3
`+script, fmt.Sprintf("verify_command = %q", verify), "[vms.bootstrap.env]\n"+env.String()))
			stop := watchProcesses(t)
			err := w.open().Up(t.Context(), UpOptions{})
			n, hits := stop()
			samples += n
			told = append(told, hits...)
			require.Equal(t, ending == "well", err == nil, "%v", err)
			require.Equal(t, len(secretShapes), strings.Count(string(mustRead(t, received)), "|"))
			require.Contains(t, string(mustRead(t, received)), "$(echo kanarienvogel-5)", "the script has them byte for byte")

			told = append(told, w.tells(err)...)
			w.down()
			files, n := holding(t, w.home, w.fakes, filepath.Join(filepath.Dir(w.dir), "guest-web"))
			told, looked = append(told, files...), looked+n
			require.NoError(t, os.Remove(filepath.Join(w.dir, "castra.toml")))
			files, _ = holding(t, w.dir)
			told = append(told, files...)
			w.events.forget()
		})
	}
	require.Greater(t, looked, 30)
	soak.AtLeast(t, "G1", "shapes of secrets", 8, float64(len(secretShapes)))
	soak.AtLeast(t, "G1", "looks at all processes", 50, float64(samples))
	soak.AtMost(t, "G1", "places that hold a secret", 0, float64(len(told)))
	require.Empty(t, told)
}

// tells gives what of all that a user is told holds the canary.
func (w *world) tells(err error) (told []string) {
	w.Helper()
	tell := func(what, text string) {
		if at := strings.Index(text, canary); at >= 0 {
			told = append(told, fmt.Sprintf("%s: %.100q", what, text[max(0, at-40):]))
		}
	}
	if err != nil {
		tell("error", explain(err)+err.Error())
	}
	heard := 0
	for _, rec := range w.events.all() {
		line, err := rec.MarshalJSON()
		require.NoError(w, err)
		tell("event", string(line))
		heard++
	}
	require.Greater(w, heard, 10)
	status, err := w.open().Status(w.Context())
	require.NoError(w, err)
	plan, err := w.open().Plan(w.Context(), UpOptions{})
	require.NoError(w, err)
	for _, result := range []any{status, plan} {
		text, err := json.Marshal(result)
		require.NoError(w, err)
		tell("JSON", string(text))
	}
	var shown bytes.Buffer
	require.NoError(w, w.open().Logs(w.Context(), LogOptions{Raw: true}, &shown))
	require.NoError(w, w.open().Bus(w.Context(), BusOptions{JSON: true, Tail: 1000}, &shown))
	require.NoError(w, plan.write(&shown))
	tell("output", shown.String())
	require.Contains(w, shown.String(), "***")
	return told
}
