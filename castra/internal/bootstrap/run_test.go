package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemutest"
)

func TestRunApplied(t *testing.T) {
	b := newBench(t, "echo hello from $CASTRA_VM $CASTRA_RUN_ID; echo oops >&2; pwd; test -z \"$CASTRA_PAYLOAD_DIR\" && touch \"$HOME/done\"\n")
	b.plan.VerifyPath = filepath.Join(b.home, "done")
	b.plan.VerifyCommand = `test "$CASTRA_VM" = web-0 && echo checked`
	result, err := b.run()
	require.NoError(t, err)
	require.Equal(t, "applied", result.Outcome)
	require.Equal(t, b.plan.LogPath, result.Log)
	want := []string{"wait-handshake completed", "connect completed", "transfer completed", "apply completed", "verify completed"}
	require.Equal(t, want, stepNames(result.Steps))
	private := filepath.Join(b.plan.RemoteDir, b.plan.Run)
	require.Equal(t, []string{"hello from web-0 20261125-r1", private, "checked"}, b.output("stdout"))
	require.Equal(t, []string{"oops"}, b.output("stderr"))
	b.requireClean()

	require.IsType(t, event.BootstrapStarted{}, b.events[0])
	require.IsType(t, event.BootstrapCompleted{}, b.events[len(b.events)-1])
	log := b.log()
	require.Equal(t, 1, log.SchemaVersion)
	require.Equal(t, "applied", log.Outcome)
	require.Equal(t, want, stepNames(log.Steps))
	require.Zero(t, *log.ExitStatus)
	require.Len(t, log.ScriptSHA256, 64)
	require.Equal(t, []string{"sh"}, log.Interpreter)
	require.False(t, log.Ended.Before(log.Started))
	require.Contains(t, log.Output, "oops")
}

func TestRunNoop(t *testing.T) {
	for script, want := range map[string]string{
		"echo Castra:noop\n":            "noop",
		"printf 'Castra:noop'":          "noop",
		"echo Castra:noop >&2\n":        "applied",
		"echo 'so: Castra:noop'\n":      "applied",
		"echo ' Castra:noop'; exit 0\n": "applied",
	} {
		result, err := newBench(t, script).run()
		require.NoError(t, err)
		require.Equal(t, want, result.Outcome, script)
	}
	b := newBench(t, "true\n")
	b.plan.VerifyCommand = "echo Castra:noop"
	result, err := b.run()
	require.NoError(t, err)
	require.Equal(t, "applied", result.Outcome)
}

func TestRunSkipped(t *testing.T) {
	b := newBench(t, "exit 1\n")
	b.plan.Mode = "skip"
	b.login.Addr = "127.0.0.1:1"
	result, err := b.run()
	require.NoError(t, err)
	require.Equal(t, Result{Outcome: "skipped"}, result)
	require.NoFileExists(t, b.plan.LogPath)
	b.plan.Mode, b.plan.Script = "always", ""
	result, err = Run(t.Context(), b.plan, b.login, nil)
	require.NoError(t, err)
	require.Equal(t, "skipped", result.Outcome)
}

// Failure bank 85: never 0, the status is visible, and the log agrees.
func TestRunFailures(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		spoil  func(*bench)
		step   string
		status int
		want   string
	}{
		"exit 3":         {script: "echo last words; exit 3\n", step: "apply", status: 3, want: "the script failed: exit status 3\n  | last words\n"},
		"exit 255":       {script: "exit 255\n", step: "apply", status: 255, want: "the script failed: exit status 255"},
		"exit 125":       {script: "exit 125\n", step: "apply", status: 125, want: "the script failed"},
		"killed":         {script: "kill -KILL $$\n", step: "apply", status: 137, want: "the script failed: killed by signal KILL"},
		"verify_command": {script: "true\n", spoil: func(b *bench) { b.plan.VerifyCommand = "echo no >&2; exit 4" }, step: "verify", status: 4, want: "verify_command: exit status 4"},
		"verify_path":    {script: "true\n", spoil: func(b *bench) { b.plan.VerifyPath = "/no/such $thing" }, step: "verify", status: 1, want: "verify_path /no/such $thing: does not exist in the guest"},
		"no interpreter": {script: "#!/no/such/bash -e\n", step: "transfer", want: "there is no /no/such/bash, which the first line of the script asks for"},
		"no env program": {script: "#!/usr/bin/env castra-no-such\n", step: "transfer", want: "there is no castra-no-such"},
		"unreachable":    {script: "true\n", spoil: func(b *bench) { b.login.Addr, b.plan.HandshakeTimeout = "127.0.0.1:1", 100*time.Millisecond }, step: "wait-handshake", want: "could not connect to 127.0.0.1:1"},
		"wrong key":      {script: "true\n", spoil: func(b *bench) { _, b.login.HostKey = qemutest.NewKey(b.t) }, step: "wait-handshake", want: "host key of"},
		"refused": {script: "true\n", spoil: func(b *bench) {
			b.login.PrivateKey, _ = qemutest.NewKey(b.t)
			b.plan.HandshakeTimeout = 300 * time.Millisecond
		}, step: "wait-handshake", want: "the guest refused the key"},
		"empty":            {script: "", step: "prepare", want: "is empty"},
		"CRLF":             {script: "#!/bin/sh\r\necho ok\r\n", step: "prepare", want: "CR LF"},
		"directory":        {spoil: func(b *bench) { b.plan.Script = filepath.Dir(b.plan.Script) }, step: "prepare", want: "is not a file"},
		"no script":        {spoil: func(b *bench) { b.plan.Script += ".none" }, step: "prepare", want: "no such file"},
		"no payload":       {script: "true\n", spoil: func(b *bench) { b.plan.Payload = "/no/such/payload" }, step: "prepare", want: "/no/such/payload"},
		"env name":         {script: "true\n", spoil: func(b *bench) { b.plan.Env = map[string]string{"A B": "x"} }, step: "prepare", want: `env "A B"`},
		"env NUL":          {script: "true\n", spoil: func(b *bench) { b.plan.Env = map[string]string{"A": "x\x00y"} }, step: "prepare", want: "env A: the value has a NUL byte"},
		"run name":         {script: "true\n", spoil: func(b *bench) { b.plan.Run = "../x" }, step: "prepare", want: `run "../x"`},
		"relative":         {script: "true\n", spoil: func(b *bench) { b.plan.RemoteDir = "tmp" }, step: "prepare", want: `remote_dir "tmp"`},
		"payload is a tty": {script: "true\n", spoil: func(b *bench) { b.plan.Payload = "/dev/null" }, step: "transfer", want: "neither a file"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.script)
			if c.spoil != nil {
				c.spoil(b)
			}
			result, err := b.run()
			var step *StepError
			require.ErrorAs(t, err, &step)
			require.ErrorContains(t, err, "bootstrap web-0: "+c.step+": ")
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "log: "+b.plan.LogPath)
			require.Equal(t, c.step, step.Step)
			require.Equal(t, c.status, step.Status)
			require.Equal(t, "failed", result.Outcome)
			failed, ok := b.events[len(b.events)-1].(event.BootstrapFailed)
			require.True(t, ok)
			require.Equal(t, c.step, failed.Step)
			log := b.log()
			require.Equal(t, "failed", log.Outcome)
			require.Equal(t, c.step, log.FailedStep)
			require.Equal(t, failed.Error, log.Error)
			if c.step == "apply" {
				require.Equal(t, c.status, *log.ExitStatus)
			}
			if c.step != "prepare" {
				require.NotEmpty(t, step.Hint()+c.want)
			}
			b.requireClean()
		})
	}
}

func TestHint(t *testing.T) {
	require.Contains(t, (&StepError{Step: "apply", VM: "web-0", Err: &guest.ExitError{Status: 1}}).Hint(), "mage ssh web-0")
	require.Contains(t, (&StepError{Step: "prepare", Err: &LineEndError{Script: "run.sh"}}).Hint(), "sed -i")
	require.Contains(t, (&StepError{Step: "wait-handshake", Err: &guest.LoginError{}}).Hint(), "identity")
	require.NotEmpty(t, (&StepError{Step: "verify", Err: errors.New("x")}).Hint())
}

// G1: values reach the script byte for byte, and nothing else.
func TestRunSecretsG1(t *testing.T) {
	env := map[string]string{
		"PLAIN": "s3cr3t-canary", "QUOTES": `s3cr3t-'canary' "x"`, "DOLLAR": "s3cr3t-canary$HOME`id`\\", "EQUALS": "a=s3cr3t-canary=b",
		"LINES": "s3cr3t-canary\nline s3cr3t-two\n\n", "SPACES": "  s3cr3t-canary  ", "BYTES": "s3cr3t-canary\xff\x81\x88", "EMPTY": "",
	}
	dump := "for k in"
	for k := range env {
		dump += " " + k
	}
	// The values go to files byte for byte, and to both streams.
	dump += `; do eval "v=\$$k"; printf %s "$v" > "$HOME/$k"; echo "out $v"; echo "$v" >&2; done
tr '\0' '\n' < /proc/$PPID/cmdline > "$HOME/argv"; tr '\0' '\n' < /proc/$$/cmdline >> "$HOME/argv"
`
	for name, ending := range map[string]string{"good": "exit 0\n", "failing": "echo $PLAIN; exit 7\n"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dump+ending)
			b.plan.Env = env
			b.plan.VerifyCommand = `echo "verify $PLAIN"; exit 1`
			stop := watchArgv(t, "s3cr3t")
			_, err := b.run()
			require.Empty(t, stop(), "a value stood in a command line")
			require.Error(t, err)
			for key, value := range env {
				got, err := os.ReadFile(filepath.Join(b.home, key))
				require.NoError(t, err)
				require.Equal(t, value, string(got), key)
			}
			argv, readErr := os.ReadFile(filepath.Join(b.home, "argv"))
			require.NoError(t, readErr)
			require.NotContains(t, string(argv), "s3cr3t")
			everything := b.everything(err)
			require.NotContains(t, everything, "s3cr3t")
			require.Contains(t, everything, blot)
			require.Equal(t, []string{"BYTES", "DOLLAR", "EMPTY", "EQUALS", "LINES", "PLAIN", "QUOTES", "SPACES"}, b.log().EnvKeys)
		})
	}
}

// watchArgv looks through all command lines until it is stopped.
func watchArgv(t *testing.T, canary string) (stop func() []string) {
	ctx, cancel := context.WithCancel(t.Context())
	found := make(chan []string, 1)
	go func() {
		var hits []string
		for ctx.Err() == nil {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, f := range files {
				data, _ := os.ReadFile(f)
				if strings.Contains(string(data), canary) {
					hits = append(hits, f+": "+string(data))
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		found <- hits
	}()
	return func() []string { cancel(); return <-found }
}

// Failure bank 103: dollar signs reach the guest as they are.
func TestRunDollarSigns(t *testing.T) {
	b := newBench(t, "true\n")
	b.plan.Env = map[string]string{"PASS": "pa$word"}
	b.plan.VerifyCommand = `test -n "$HOME" && test "$PASS" = 'pa$word' && test -z "${UNSET}" && echo "$$" | grep -q '^[0-9]*$'`
	_, err := b.run()
	require.NoError(t, err)
}

// Failure bank 82, 83: modes, interpreters, payload bytes.
func TestRunScripts(t *testing.T) {
	if _, err := exec.LookPath("bash"); err == nil {
		b := newBench(t, "#!/usr/bin/env bash\n[[ $BASH_VERSION ]] && echo bash $0\n")
		_, err := b.run()
		require.NoError(t, err)
		require.Equal(t, []string{"bash " + filepath.Join(b.plan.RemoteDir, b.plan.Run, scriptName)}, b.output("stdout"))
	}
	b := newBench(t, "#! /bin/sh -e\nfalse\necho not reached\n")
	_, err := b.run()
	require.ErrorContains(t, err, "exit status 1")

	b = newBench(t, "cat; echo stdin is empty; umask; ls -ld . | cut -c1-10\n")
	_, err = b.run()
	require.NoError(t, err)
	require.Equal(t, "stdin is empty", b.output("stdout")[0])
	require.Equal(t, "drwx------", b.output("stdout")[2])

	b = newBench(t, "# "+strings.Repeat("long ", 300_000)+"\necho big\n")
	_, err = b.run()
	require.NoError(t, err)
	require.Equal(t, []string{"big"}, b.output("stdout"))
}

func TestRunPayload(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "assets")
	require.NoError(t, os.MkdirAll(filepath.Join(tree, "sub dir", "empty"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tree, ".env"), []byte("a\r\nb\x00\xff"), 0o640))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "sub dir", "tool"), []byte("#!/bin/sh\necho tool ran\n"), 0o755))
	script := `cd "$CASTRA_PAYLOAD_DIR" && find . | sort && wc -c < .env && "./sub dir/tool"` + "\n"
	b := newBench(t, script)
	b.plan.Payload = tree
	_, err := b.run()
	require.NoError(t, err)
	require.Equal(t, []string{".", "./.env", "./sub dir", "./sub dir/empty", "./sub dir/tool", "6", "tool ran"}, b.output("stdout"))
	b.requireClean()

	b = newBench(t, `cd "$CASTRA_PAYLOAD_DIR" && ls -A && cat .env | wc -c`+"\n")
	b.plan.Payload = filepath.Join(tree, ".env")
	_, err = b.run()
	require.NoError(t, err)
	require.Equal(t, []string{".env", "6"}, b.output("stdout"))
}

// Failure bank 84: no symlink is followed, nobody else's directory is used,
// and nothing but the run's own directory is removed.
func TestRunRemoteDir(t *testing.T) {
	t.Run("symlink", func(t *testing.T) {
		b := newBench(t, "true\n")
		real := filepath.Join(b.home, "real")
		require.NoError(t, os.Mkdir(real, 0o700))
		require.NoError(t, os.Symlink(real, b.plan.RemoteDir))
		b.plan.RemoteDir += "/"
		_, err := b.run()
		require.ErrorContains(t, err, "is a symbolic link")
		entries, err := os.ReadDir(real)
		require.NoError(t, err)
		require.Empty(t, entries)
	})
	t.Run("foreign", func(t *testing.T) {
		b := newBench(t, "true\n")
		require.NoError(t, os.Mkdir(b.plan.RemoteDir, 0o777))
		if err := os.Chown(b.plan.RemoteDir, 12345, 12345); err != nil {
			t.Skip("needs root: ", err)
		}
		_, err := b.run()
		require.ErrorContains(t, err, "belongs to another user")
	})
	t.Run("taken run", func(t *testing.T) {
		b := newBench(t, "true\n")
		mine := filepath.Join(b.plan.RemoteDir, b.plan.Run)
		require.NoError(t, os.MkdirAll(mine, 0o700))
		_, err := b.run()
		require.ErrorContains(t, err, "make "+b.plan.RemoteDir)
		require.DirExists(t, mine, "another run's directory is not ours to remove")
	})
	t.Run("kept neighbours", func(t *testing.T) {
		b := newBench(t, "exit 1\n")
		require.NoError(t, os.MkdirAll(filepath.Join(b.plan.RemoteDir, "neighbour"), 0o700))
		_, err := b.run()
		require.Error(t, err)
		require.DirExists(t, filepath.Join(b.plan.RemoteDir, "neighbour"))
		b.requireClean()
	})
}

// A cancel ends the script, and the directory is removed all the same.
func TestRunCancelled(t *testing.T) {
	b := newBench(t, "echo started; sleep 60\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("taken down")
	_, err := Run(ctx, b.plan, b.login, func(e event.Event) {
		b.emit(e)
		if _, ok := e.(event.BootstrapOutput); ok {
			cancel(why)
		}
	})
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "the script was stopped")
	require.Nil(t, b.log().ExitStatus)
	b.requireClean()
}

// A script that takes the connection down is not a script that failed.
func TestRunConnectionLost(t *testing.T) {
	b := newBench(t, "echo started; sleep 60\n")
	_, err := Run(t.Context(), b.plan, b.login, func(e event.Event) {
		b.emit(e)
		if _, ok := e.(event.BootstrapOutput); ok {
			go b.server.Close()
		}
	})
	require.Error(t, err)
	var step *StepError
	require.ErrorAs(t, err, &step)
	require.Equal(t, "apply", step.Step)
	var exit *guest.ExitError
	if !errors.As(err, &exit) { // the fake guest may still tell that it killed the script
		require.ErrorContains(t, err, "the connection was lost while the script ran")
	}
	require.NotEmpty(t, b.log().LeftBehind)
}

// F-3: endless output is bounded in events, log and error.
func TestRunFloodF3(t *testing.T) {
	b := newBench(t, "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo "+strings.Repeat("x", 1000)+" $i; done; exit 9\n")
	_, err := b.run()
	var step *StepError
	require.ErrorAs(t, err, &step)
	require.Len(t, step.Tail, errorLines)
	require.True(t, strings.HasSuffix(step.Tail[errorLines-1], " 4000"))
	bytes := 0
	for _, line := range b.output("stdout") {
		bytes += len(line) + 1
	}
	require.LessOrEqual(t, bytes, eventsMax)
	warnings := 0
	for _, e := range b.events {
		if m, ok := e.(event.Message); ok {
			warnings++
			require.Contains(t, m.Text, "1024 KiB")
		}
	}
	require.Equal(t, 1, warnings)
	require.LessOrEqual(t, len(b.log().Output), tailMax)
}

func TestRunLogThatCannotBeWritten(t *testing.T) {
	b := newBench(t, "true\n")
	b.plan.LogPath = filepath.Join(b.plan.Script, "log.json") // below a file
	result, err := b.run()
	require.NoError(t, err)
	require.Empty(t, result.Log)
	require.Contains(t, fmt.Sprint(b.events), "write bootstrap log")
}

// Two runs at once do not meet.
func TestRunTwice(t *testing.T) {
	b := newBench(t, "echo $CASTRA_RUN_ID > x; sleep 0.2; cat x\n")
	errs := make(chan error, 4)
	for i := range 4 {
		plan := b.plan
		plan.Run, plan.LogPath = "r"+strconv.Itoa(i), ""
		go func() {
			_, err := Run(t.Context(), plan, b.login, b.emit)
			errs <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
	require.ElementsMatch(t, []string{"r0", "r1", "r2", "r3"}, b.output("stdout"))
}
