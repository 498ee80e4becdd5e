package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"castra.example/castra/castra/internal/guest"
)

// receive makes the run's private directory, says its name, and takes the
// script. It works inside the directory, so that nothing it has checked can be
// changed for something else under its name. $1 remote_dir, $2 run, $3 size of
// the script, and then the programs that must be there. Each program that the
// guest starts costs 10 ms under TCG, so it starts few.
const receive = `
fail() { echo "$*" >&2; exit 1; }
umask 077
[ ! -L "$1" ] || fail "$1 is a symbolic link"
[ -d "$1" ] || mkdir -p -- "$1" || exit
cd -P -- "$1" || exit
[ -O . ] || fail "$1 belongs to another user"
mkdir -- "$2" && cd -P -- "$2" || exit
[ -O . ] || fail "$1/$2 belongs to another user"
pwd -P
size=$3
shift 3
for program; do
	case $program in
	*/*) [ -x "$program" ] ;;
	*) command -v -- "$program" >/dev/null 2>&1 ;;
	esac || fail "there is no $program, which the first line of the script asks for"
done
cat > script || exit
got=$(wc -c < script) && [ "$((got))" -eq "$size" ] || fail "only $((got)) of $size bytes of the script arrived"`

const (
	scriptName = "script"
	payloadDir = "payload"
	pathMax    = 4096
)

func (r *run) transfer(ctx context.Context) (string, error) {
	file, err := os.Open(r.script.path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	out := &lines{redactor: &redactor{replacer: strings.NewReplacer()}, take: func(line string) {
		if r.dir == "" && path.IsAbs(line) && path.Base(line) == r.plan.Run && len(line) < pathMax {
			r.dir = line
		}
	}}
	said := &lines{redactor: r.redactor}
	var complaints []string
	said.take = func(line string) {
		if len(complaints) < errorLines {
			complaints = append(complaints, line)
		}
	}
	args := append([]string{r.plan.RemoteDir, r.plan.Run, strconv.FormatInt(r.script.size, 10)}, r.script.programs()...)
	err = r.client.Run(ctx, guest.Command{Line: guest.Sh(receive, args...),
		Stdin: io.LimitReader(file, r.script.size), Stdout: out, Stderr: said})
	out.end()
	said.end()
	switch {
	case err != nil && len(complaints) > 0:
		return "", fmt.Errorf("make %s in the guest: %s (%w)", r.plan.RemoteDir, strings.Join(complaints, "; "), err)
	case err != nil:
		return "", fmt.Errorf("make %s in the guest: %w", r.plan.RemoteDir, err)
	case r.dir == "":
		return "", fmt.Errorf("make %s in the guest: it did not say where", r.plan.RemoteDir)
	}
	detail := fmt.Sprintf("%s, %d bytes", filepath.Base(r.script.path), r.script.size)
	if r.plan.Payload == "" {
		return detail, nil
	}
	return detail + ", payload " + filepath.Base(r.plan.Payload), r.uploadPayload(ctx)
}

// uploadPayload puts a directory's content into the payload directory, and a
// file there under its own name.
func (r *run) uploadPayload(ctx context.Context) error {
	info, err := os.Stat(r.plan.Payload)
	if err != nil {
		return err
	}
	to := path.Join(r.dir, payloadDir)
	if !info.IsDir() {
		if err := r.client.Run(ctx, guest.Command{Line: guest.Sh(`mkdir -- "$1"`, to)}); err != nil {
			return fmt.Errorf("make %s in the guest: %w", to, err)
		}
		to = path.Join(to, filepath.Base(r.plan.Payload))
	}
	return r.client.Upload(ctx, r.plan.Payload, to)
}

// load changes to $1, takes the environment from standard input, and becomes
// the rest of its arguments. That last part stands at the end of the input:
// where the input is cut off, nothing runs. The status 125 is seen only then.
const load = `cd "$1" && shift && eval "$(cat)"; exit 125`

// environment is the input of load. The values are words of a shell script
// here, and so never in a command line, neither here nor in the guest.
func (r *run) environment() io.Reader {
	var b bytes.Buffer
	export := func(key, value string) { fmt.Fprintf(&b, "export %s=%s\n", key, guest.Quote(value)) }
	for _, key := range r.plan.keys() {
		export(key, r.plan.Env[key])
	}
	payload := ""
	if r.plan.Payload != "" {
		payload = path.Join(r.dir, payloadDir)
	}
	export("CASTRA_VM", r.plan.VM)
	export("CASTRA_RUN_ID", r.plan.Run)
	export("CASTRA_PAYLOAD_DIR", payload)
	b.WriteString("exec \"$@\" </dev/null\n")
	return &b
}

// inGuest runs a program in the run's directory and with its environment.
func (r *run) inGuest(ctx context.Context, program ...string) error {
	stdout, stderr := r.output("stdout"), r.output("stderr")
	err := r.client.Run(ctx, guest.Command{Line: guest.Sh(load, append([]string{r.dir}, program...)...),
		Stdin: r.environment(), Stdout: stdout, Stderr: stderr})
	if err == nil || isExit(err) {
		// Otherwise the streams may still be written to.
		stdout.end()
		stderr.end()
	}
	return err
}

func isExit(err error) bool {
	var exit *guest.ExitError
	return errors.As(err, &exit)
}

func (r *run) apply(ctx context.Context) (string, error) {
	err := r.inGuest(ctx, append(r.script.interpreter, path.Join(r.dir, scriptName))...)
	var exit *guest.ExitError
	status := 0
	switch {
	case errors.As(err, &exit):
		status = exit.Status
		r.status = &status
		return "", fmt.Errorf("the script failed: %w", err)
	case err != nil && ctx.Err() != nil:
		return "", fmt.Errorf("the script was stopped: %w", err)
	case err != nil:
		return "", fmt.Errorf("the connection was lost while the script ran: %w", err)
	}
	r.status = &status
	if r.noop {
		return "the script says that nothing was to do", nil
	}
	return "", nil
}

func (r *run) verify(ctx context.Context) (string, error) {
	var checked []string
	if r.plan.VerifyPath != "" {
		err := r.client.Run(ctx, guest.Command{Line: guest.Sh(`test -e "$1"`, r.plan.VerifyPath)})
		if isExit(err) {
			return "", fmt.Errorf("verify_path %s: does not exist in the guest (%w)", r.plan.VerifyPath, err)
		}
		if err != nil {
			return "", fmt.Errorf("verify_path %s: %w", r.plan.VerifyPath, err)
		}
		checked = append(checked, "verify_path exists")
	}
	if r.plan.VerifyCommand != "" {
		if err := r.inGuest(ctx, "sh", "-c", r.plan.VerifyCommand); err != nil {
			return "", fmt.Errorf("verify_command: %w", err)
		}
		checked = append(checked, "verify_command exited with 0")
	}
	if len(checked) == 0 {
		return "nothing to verify", nil
	}
	return strings.Join(checked, ", "), nil
}
