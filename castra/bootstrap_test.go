package castra

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/bootstrap"
)

// bootstrapped is a VM table with a script for its bootstrap. The fake guest
// is this computer, so each VM's directory is one of the test's own.
func (w *world) bootstrapped(role, script string, lines ...string) string {
	w.Helper()
	w.write("bootstrap/"+role+"/run.sh", "#!/bin/sh\n"+script+"\n")
	remote := filepath.Join(filepath.Dir(w.dir), "guest-"+role)
	return vm(role, "[vms.bootstrap]", fmt.Sprintf("remote_dir = %q", remote), strings.Join(lines, "\n"))
}

// planned is what the last up decided about the VM's bootstrap.
func (w *world) planned(vm string) string {
	for _, kind := range w.events.story(vm) {
		if rest, ok := strings.CutPrefix(kind, "bootstrap.planned "); ok {
			return rest
		}
	}
	return ""
}

// tally counts the lines that scripts have added to a file.
func (w *world) tally(file string) int {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return strings.Count(string(data), "\n")
}

// Auto runs a script once for each overlay, and again when what it is made of
// has changed.
func TestBootstrapAuto(t *testing.T) {
	w := newWorld(t, patient)
	file := filepath.Join(t.TempDir(), "runs")
	w.write("payload/greeting", "hello")
	script := "echo run >> " + file + "\ncat \"$CASTRA_PAYLOAD_DIR/greeting\"\necho \"$COLOUR on $CASTRA_VM\""
	configure := func(colour string) {
		w.configure(patient, w.bootstrapped("web", script, `payload = "payload"`, fmt.Sprintf("env = { COLOUR = %q }", colour)))
	}
	runs := 0
	up := func(ran bool, plan string) {
		t.Helper()
		w.events.forget()
		w.up()
		if ran {
			runs++
		}
		require.Equal(t, runs, w.tally(file))
		require.Equal(t, plan, w.planned("web-0"))
	}
	configure("red")
	up(true, "run: fresh overlay")
	require.Equal(t, "applied", w.status("web-0").Bootstrap)
	output := ""
	for _, e := range w.events.of("web-0") {
		if line, ok := e.(event.BootstrapOutput); ok {
			output += line.Line + "\n"
		}
	}
	require.Contains(t, output, "hello")
	require.Contains(t, output, "on web-0")
	up(false, "skip: done already")

	const changed = "run: script, payload, env or verification changed"
	configure("blue")
	up(true, changed)
	w.write("payload/greeting", "goodbye")
	up(true, changed)
	script += "\n: # a change"
	configure("blue")
	up(true, changed)
	up(false, "skip: done already")

	w.down()
	up(true, "run: fresh overlay")
	w.down()
	w.cleanSlate()
	logs, err := os.ReadDir(filepath.Join(w.layout().Logs(), "bootstrap"))
	require.NoError(t, err)
	require.Len(t, logs, runs, "each run leaves a log")
}

func TestBootstrapNoop(t *testing.T) {
	w := newWorld(t, patient)
	w.configure(patient, w.bootstrapped("web", "echo Castra:noop"))
	w.up()
	require.Equal(t, "noop", w.status("web-0").Bootstrap)
	require.Contains(t, w.events.story("web-0"), "bootstrap.completed noop")
	w.up()
	w.down()
	w.cleanSlate()
}

// A failed bootstrap leaves its VM running; the next up runs it again.
func TestBootstrapFails(t *testing.T) {
	w := newWorld(t, patient)
	other := w.bootstrapped("db", ":")
	w.configure(patient, w.bootstrapped("web", "echo out of luck >&2\nexit 3"), other)
	for range 2 {
		w.events.forget()
		err := w.open().Up(t.Context(), UpOptions{})
		var step *bootstrap.StepError
		require.ErrorAs(t, err, &step)
		require.Equal(t, 3, step.Status)
		require.ErrorContains(t, err, "up web-0: bootstrap: ")
		require.ErrorContains(t, err, "out of luck")
		require.Equal(t, exitFailed, exitStatus(err), "a script's status is not mage's")
		require.NotEmpty(t, hint(err))
		s := w.status("web-0")
		require.Equal(t, []string{"running", "failed"}, []string{s.State, s.Bootstrap})
		require.Contains(t, s.Problem, "bootstrap failed: ")
		require.Equal(t, "applied", w.status("db-0").Bootstrap)
	}
	require.Equal(t, "run: the last run failed", w.planned("web-0"))
	pids := w.running()
	w.configure(patient, w.bootstrapped("web", ":"), other)
	w.up()
	require.Equal(t, pids, w.running())
	require.Equal(t, "applied", w.status("web-0").Bootstrap)
	require.Empty(t, w.status("web-0").Problem)
	w.down()
	w.cleanSlate()
}

func TestBootstrapVerify(t *testing.T) {
	for name, lines := range map[string][]string{
		"command": {`verify_command = "exit 5"`},
		"path":    {`verify_path = "/nowhere/at-all"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient)
			w.configure(patient, w.bootstrapped("web", ":", lines...))
			err := w.open().Up(t.Context(), UpOptions{})
			var step *bootstrap.StepError
			require.ErrorAs(t, err, &step)
			require.Equal(t, "verify", step.Step)
			require.Equal(t, "failed", w.status("web-0").Bootstrap)
			require.Equal(t, "verify", w.session().VMs["web-0"].Bootstrap.Step)
			w.configure(patient, w.bootstrapped("web", ":", `verify_command = "true"`, `verify_path = "/"`))
			w.up()
			w.down()
			w.cleanSlate()
		})
	}
}

func TestBootstrapModes(t *testing.T) {
	const auto, skip, always = "run: fresh overlay", "skip: mode skip", "run: mode always"
	for _, c := range []struct {
		mode, override string
		web, db        string
	}{
		{"auto", "", auto, auto},
		{"skip", "", skip, auto},
		{"always", "", always, auto},
		{"auto", "skip", skip, skip},
		{"skip", "always", always, always},
		{"skip", "web=always", always, auto},
		{"auto", "web=skip,db-0=always", skip, always},
		{"auto", "skip,db=auto", skip, auto},
	} {
		t.Run(c.mode+" and "+c.override, func(t *testing.T) {
			w := newWorld(t, patient)
			w.configure(patient, w.bootstrapped("web", ":", fmt.Sprintf("mode = %q", c.mode)), w.bootstrapped("db", ":"))
			require.NoError(t, w.open().Up(t.Context(), UpOptions{Bootstrap: c.override}))
			require.Equal(t, []string{c.web, c.db}, []string{w.planned("web-0"), w.planned("db-0")})
			w.down()
			w.cleanSlate()
		})
	}
}

// A skipped bootstrap is made up for when it is asked for.
func TestBootstrapAfterSkip(t *testing.T) {
	w := newWorld(t, patient)
	w.configure(patient, w.bootstrapped("web", ":"))
	require.NoError(t, w.open().Up(t.Context(), UpOptions{Bootstrap: "skip"}))
	w.events.forget()
	w.up()
	require.Equal(t, "run: fresh overlay", w.planned("web-0"))
	w.events.forget()
	require.NoError(t, w.open().Up(t.Context(), UpOptions{Bootstrap: "always"}))
	require.Equal(t, "run: mode always", w.planned("web-0"))
	w.down()
	w.cleanSlate()
}

// The values of env are the guest's alone.
func TestBootstrapEnvIsSecret(t *testing.T) {
	const canary = "correct-horse-battery-staple"
	for name, ending := range map[string]string{"well": "exit 0", "badly": "exit 1"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient)
			// The script looks for the value on every command line of this
			// computer; and it talks too much.
			w.configure(patient, w.bootstrapped("web", `
printf %s "$TOKEN" > pattern
printf 'length %s\n' "${#TOKEN}"
for p in /proc/[0-9]*/cmdline; do tr '\0' ' ' < "$p" 2>/dev/null; echo; done > lines
printf 'on command lines: %s\n' "$(grep -c -F -f pattern lines)"
echo "the token is $TOKEN"
echo "again: $TOKEN" >&2
`+ending, fmt.Sprintf("env = { TOKEN = %q }", canary)))
			err := w.open().Up(t.Context(), UpOptions{})
			if ending == "exit 1" {
				require.Error(t, err)
				require.NotContains(t, explain(err), canary)
			} else {
				require.NoError(t, err)
			}
			told := ""
			for _, rec := range w.events.all() {
				line, err := rec.MarshalJSON()
				require.NoError(t, err)
				told += string(line) + "\n"
			}
			require.Contains(t, told, fmt.Sprintf("length %d", len(canary)), "the script had it")
			require.Contains(t, told, "on command lines: 0")
			require.NotContains(t, told, canary)
			status, err := w.open().Status(t.Context())
			require.NoError(t, err)
			require.NotContains(t, fmt.Sprintf("%+v", status), canary)

			l := w.layout()
			require.NoError(t, filepath.WalkDir(l.Root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				require.NotContains(t, string(mustRead(t, path)), canary, path)
				return nil
			}))
			require.Contains(t, string(mustRead(t, l.Snapshot())), "env, without the values: ")
			w.down()
			w.cleanSlate()
		})
	}
}
