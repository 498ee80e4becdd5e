package castra

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

func TestWith(t *testing.T) {
	w := newWorld(t, patient, vm("web", "[[vms.port_forwards]]", "guest = 80"), vm("db", "count = 2"))
	p := w.open()
	fault := errors.New("a test failed")
	err := p.With(t.Context(), UpOptions{}, func(ctx context.Context, s *Session) error {
		require.Equal(t, []string{"db-0", "db-1", "web-0"}, s.VMs())
		addr, err := s.Address("web", 80)
		require.NoError(t, err)
		require.Equal(t, w.status("web-0").Forwards[0].HostPort, portOf(t, addr))
		_, err = s.Address("web", 81)
		require.Equal(t, exitNoInput, exitStatus(err))
		require.Contains(t, hint(err), "guest = 81")
		_, err = s.Address("db", 22)
		require.ErrorAs(t, err, new(*UnknownVMError), "which of the two?")
		out, err := s.Output(ctx, "web", "echo hello; echo aside >&2")
		require.NoError(t, err)
		require.Equal(t, "hello", out)
		_, err = s.Output(ctx, "db-1", "echo bad news >&2; exit 3")
		require.ErrorContains(t, err, "bad news")
		require.Equal(t, 3, exitStatus(err))
		return fault
	})
	require.ErrorIs(t, err, fault)
	w.cleanSlate()
}

// However the function ends, the VMs go down.
func TestWithAlwaysGoesDown(t *testing.T) {
	for name, end := range map[string]func(cancel func()) error{
		"panic":  func(func()) error { panic("a test panics") },
		"Ctrl-C": func(cancel func()) error { cancel(); return context.Canceled },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient, vm("web"))
			ctx, cancel := w.cancellable()
			func() {
				defer func() { _ = recover() }()
				_ = w.open().With(ctx, UpOptions{}, func(context.Context, *Session) error {
					require.Len(t, w.running(), 1)
					return end(cancel)
				})
			}()
			w.cleanSlate()
		})
	}
	t.Run("a failed up", func(t *testing.T) {
		w := newWorld(t, patient, vm("web"))
		w.write("bootstrap/web/run.sh", "exit 3")
		called := false
		err := w.open().With(t.Context(), UpOptions{}, func(context.Context, *Session) error { called = true; return nil })
		require.Equal(t, exitFailed, exitStatus(err))
		require.False(t, called)
		w.cleanSlate()
	})
}

func TestEnvironmentOfASession(t *testing.T) {
	w := newWorld(t, patient, vm("web-api", "[[vms.port_forwards]]", "guest = 80", "[[vms.port_forwards]]", "guest = 53", `protocol = "udp"`), vm("db", "count = 2"))
	w.up()
	s, err := w.open().Session(t.Context())
	require.NoError(t, err)
	env := map[string]string{}
	for _, pair := range s.Environment() {
		name, value, _ := strings.Cut(pair, "=")
		require.NotContains(t, env, name)
		env[name] = value
	}
	addr, err := s.Address("web-api", 80)
	require.NoError(t, err)
	require.Equal(t, addr, env["CASTRA_WEB_API_0_ADDR_80"])
	require.Equal(t, addr, env["CASTRA_WEB_API_ADDR_80"], "a lone replica answers to its role")
	require.NotEmpty(t, env["CASTRA_WEB_API_0_ADDR_53_UDP"])
	require.Equal(t, "127.0.0.1", env["CASTRA_DB_1_HOST"])
	require.NotContains(t, env, "CASTRA_DB_HOST", "there are two")
	require.Equal(t, "db-0 db-1 web-api-0", env["CASTRA_VMS"])
	require.FileExists(t, env["CASTRA_DB_0_IDENTITY"])
	require.Equal(t, w.open().StateRoot(), env["CASTRA_STATE_ROOT"])
	w.down()
}

func TestWithin(t *testing.T) {
	w := newWorld(t, patient, vm("web", "[[vms.port_forwards]]", "guest = 80"))
	var out, fault bytes.Buffer
	err := w.open().Within(t.Context(), UpOptions{}, HostCommand{
		Line: `echo "$OWN $CASTRA_WEB_ADDR_80"; cat; echo aside >&2; exit 7`, Env: []string{"OWN=mine", "PATH=" + os.Getenv("PATH")},
		Stdin: strings.NewReader("input\n"), Stdout: &out, Stderr: &fault,
	})
	var exited *CommandError
	require.ErrorAs(t, err, &exited)
	require.Equal(t, 7, exitStatus(err))
	require.Regexp(t, `^mine 127\.0\.0\.1:\d+\ninput\n$`, out.String())
	require.Equal(t, "aside\n", fault.String())
	w.cleanSlate()

	require.NoError(t, w.open().Within(t.Context(), UpOptions{}, HostCommand{Line: "true"}))
	err = w.open().Within(t.Context(), UpOptions{}, HostCommand{Line: "kill -TERM $$"})
	require.Equal(t, 128+15, exitStatus(err))
	err = w.open().Within(t.Context(), UpOptions{}, HostCommand{Line: "nosuchprogram-of-castra"})
	require.Equal(t, 127, exitStatus(err))
	w.cleanSlate()
}

// Ctrl-C while the command runs: it is ended, and so are the VMs.
func TestWithinInterrupted(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	ctx, cancel := w.cancellable()
	w.events.on(func(e event.Event) {
		if e, ok := e.(event.CommandCompleted); ok && e.Command == "up" {
			go cancel()
		}
	})
	err := w.open().Within(ctx, UpOptions{}, HostCommand{Line: "exec sleep 600", Env: []string{"PATH=" + os.Getenv("PATH")}})
	require.ErrorIs(t, err, context.Canceled)
	require.NotEqual(t, 0, exitStatus(err))
	w.cleanSlate()
}

func TestCopy(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	p := w.open()
	guest := t.TempDir() // the fake guest's commands run here
	w.write("site/index.html", "<p>hello")
	w.write("site/with space/empty", "")
	require.NoError(t, p.Copy(t.Context(), filepath.Join(w.dir, "site"), "web:"+guest+"/site"))
	require.Equal(t, "<p>hello", string(mustRead(t, filepath.Join(guest, "site", "index.html"))))
	require.FileExists(t, filepath.Join(guest, "site", "with space", "empty"))
	back := filepath.Join(t.TempDir(), "back")
	require.NoError(t, p.Copy(t.Context(), "web-0:"+guest+"/site/index.html", back))
	require.Equal(t, "<p>hello", string(mustRead(t, back)))
	require.Contains(t, w.events.messages(), "copied")

	require.Equal(t, exitUsage, exitStatus(p.Copy(t.Context(), "a", "b")))
	require.Equal(t, exitUsage, exitStatus(p.Copy(t.Context(), "web:a", "web:b")))
	require.Equal(t, exitNoInput, exitStatus(p.Copy(t.Context(), "nosuch:a", "b")))
	require.Equal(t, exitNoInput, exitStatus(p.Copy(t.Context(), filepath.Join(w.dir, "nosuch"), "web:"+guest)))
	w.down()
	require.Equal(t, exitNoInput, exitStatus(p.Copy(t.Context(), w.base, "web:"+guest)), "it does not run")
}

func TestPlacesOfACopy(t *testing.T) {
	for text, want := range map[string]place{
		"web:/x":   {"web", "/x"},
		"web-0:x":  {"web-0", "x"},
		"web:":     {"web", "."},
		"./web:x":  {"", "./web:x"},
		"/web:x":   {"", "/web:x"},
		"a/b:c":    {"", "a/b:c"},
		":x":       {"", ":x"},
		"..:x":     {"", "..:x"},
		"plain":    {"", "plain"},
		"web:a:b":  {"web", "a:b"},
		`c:\x`:     {"c", `\x`},
		"web:a b ": {"web", "a b "},
	} {
		require.Equal(t, want, parsePlace(text), text)
	}
}
