package qemutest

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qmp"
)

// savingConformance is about being saved and restored, on Linux.
var savingConformance = map[string]func(*testing.T, *world){
	"save and go on": func(t *testing.T, w *world) {
		v := w.launch(t, "a", warm(w.args("a"), memfd, "-S")...)
		c := w.dial(t, "a")
		require.Empty(t, w.migrated(t, c))
		require.NoError(t, c.Execute(t.Context(), "stop", nil, nil))
		require.Equal(t, "prelaunch", statusOf(t, c), "it did not run")
		require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
		w.save(t, v, c)
		require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
		require.Equal(t, "running", statusOf(t, c))
		require.Equal(t, "completed", w.migrated(t, c).Status)
		w.save(t, v, c) // again
	},
	"restore": func(t *testing.T, w *world) {
		s := w.brief(t)
		before, err := os.ReadFile(s.ram)
		require.NoError(t, err)
		v, c := w.restore(t, "b", s, w.args("b"))
		requireLoaded(t, c)
		require.Equal(t, "paused", statusOf(t, c))
		require.Equal(t, "completed", w.migrated(t, c).Status)
		var refused *qmp.Error
		require.ErrorAs(t, c.Execute(t.Context(), "migrate-incoming", map[string]any{"uri": "fd:3"}, nil), &refused)
		require.Equal(t, "The incoming migration has already been started", refused.Desc)
		require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
		require.Equal(t, "running", statusOf(t, c))
		require.NoError(t, c.Execute(t.Context(), "quit", nil, nil))
		v.result(t)
		after, err := os.ReadFile(s.ram)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after), "the memory file is not written to")
	},
	"restore of what never ran": func(t *testing.T, w *world) {
		v := w.launch(t, "a", warm(w.args("a"), memfd, "-S")...)
		s := w.save(t, v, w.dial(t, "a"))
		_, c := w.restore(t, "b", s, w.args("b"))
		requireLoaded(t, c)
		require.Equal(t, "prelaunch", statusOf(t, c))
	},
	"cont before the state is ignored": func(t *testing.T, w *world) {
		s := w.brief(t)
		v := w.startSaved(t, s, warm(w.args("b"), ramFile(s.ram), "-incoming", "defer")...)
		w.await(t, v, "b")
		c := w.dial(t, "b")
		require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
		require.NoError(t, c.Execute(t.Context(), "stop", nil, nil))
		require.Equal(t, "inmigrate", statusOf(t, c))
		var refused *qmp.Error
		require.ErrorAs(t, c.Execute(t.Context(), "migrate", map[string]any{"uri": "unix:x"}, nil), &refused)
		require.Equal(t, "Guest is waiting for an incoming migration", refused.Desc)
		require.NoError(t, c.Execute(t.Context(), "quit", nil, nil))
	},
	"an altered state": func(t *testing.T, w *world) {
		s := w.brief(t)
		whole, err := os.ReadFile(s.state)
		require.NoError(t, err)
		for name, x := range map[string]struct {
			state []byte
			says  string
		}{
			"magic":  {append([]byte("X"), whole[1:]...), "Invalid argument"},
			"empty":  {nil, "Invalid argument"},
			"half":   {whole[:len(whole)/2], ""},
			"a byte": {whole[:1], "Invalid argument"},
		} {
			require.NoError(t, os.WriteFile(s.state, x.state, 0o600))
			v, _ := w.restore(t, "b", s, w.args("b"))
			requireRefused(t, v, x.says)
			require.NoFileExists(t, w.path("b.pid"), name)
		}
	},
	"a state of another machine": func(t *testing.T, w *world) {
		s := w.brief(t)
		args := warm(w.args("b"), ramFile(s.ram), "-incoming", "defer", "-machine", "pc,memory-backend=ram0")
		v := w.startSaved(t, s, args...)
		w.await(t, v, "b")
		c := w.dial(t, "b")
		require.NoError(t, c.Execute(t.Context(), "migrate-set-capabilities", ignoreShared(), nil))
		require.NoError(t, c.Execute(t.Context(), "migrate-incoming", map[string]any{"uri": "fd:3"}, nil))
		requireRefused(t, v, "Invalid argument")
		require.Contains(t, v.stderr.String(), "Machine type received is 'pc-q35-")
	},
	"a state with a device less": func(t *testing.T, w *world) {
		v := w.launch(t, "a", warm(w.args("a"), memfd, "-S", "-device", `{"driver":"virtio-rng-pci"}`)...)
		s := w.save(t, v, w.dial(t, "a"))
		v, _ = w.restore(t, "b", s, w.args("b"))
		requireRefused(t, v, "Invalid argument")
	},
	"a state without the capability": func(t *testing.T, w *world) {
		s := w.brief(t)
		v := w.startSaved(t, s, warm(w.args("b"), ramFile(s.ram), "-incoming", "defer")...)
		w.await(t, v, "b")
		require.NoError(t, w.dial(t, "b").Execute(t.Context(), "migrate-incoming", map[string]any{"uri": "fd:3"}, nil))
		requireRefused(t, v, "Invalid argument")
		require.Contains(t, v.stderr.String(), "Capability x-ignore-shared is off, but received capability is on\n")
	},
	"memory files": func(t *testing.T, w *world) {
		path := w.path("ram")
		refused := func(says string) {
			t.Helper()
			code, stderr := w.start(t, warm(w.args("b"), ramFile(path), "-incoming", "defer")...).result(t)
			require.Equal(t, 1, code)
			require.Equal(t, "qemu-system-x86_64: "+says+"\n", stderr)
			require.NoFileExists(t, w.path("b.pid"))
		}
		require.NoError(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
		refused("backing store size 0x100000 does not match 'size' option 0x4000000")
		path = w.path("none/ram")
		refused("can't open backing store " + path + " for guest RAM: No such file or directory")
		for name, content := range map[string][]byte{"missing": nil, "empty": {}, "larger": make([]byte, ramSize+4096)} {
			path = w.path(name)
			if content != nil {
				require.NoError(t, os.WriteFile(path, content, 0o600))
			}
			v := w.launch(t, "b", warm(w.args("b"), ramFile(path), "-incoming", "defer")...)
			stat, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, max(ramSize, int64(len(content))), stat.Size(), "%s: it is made, of zeros", name)
			require.NoError(t, w.dial(t, "b").Execute(t.Context(), "quit", nil, nil))
			v.result(t)
		}
	},
	"refused command lines": func(t *testing.T, w *world) {
		for says, args := range map[string][]string{
			"Memory backend 'ram0' not found":                                                                            {"-machine", "q35,memory-backend=ram0"},
			"Machine memory size does not match the size of the memory backend":                                          warm([]string{"-machine", ""}, memfd, "-m", "32M"),
			"-object " + strings.Replace(memfd, "67108864", `67108864,"nope":1`, 1) + ": Parameter 'nope' is unexpected": {"-object", strings.Replace(memfd, "67108864", `67108864,"nope":1`, 1)},
			`-object {"qom-type":"memory-backend-memfd","id":"ram0"}: Parameter 'size' is missing`:                       {"-object", `{"qom-type":"memory-backend-memfd","id":"ram0"}`},
			`-object {"qom-type":"nope","id":"ram0"}: Parameter 'qom-type' does not accept value 'nope'`:                 {"-object", `{"qom-type":"nope","id":"ram0"}`},
			`-device {"driver":"nope"}: 'nope' is not a valid device model name`:                                         {"-device", `{"driver":"nope"}`},
			"-incoming nope: unknown migration protocol: nope":                                                           {"-incoming", "nope"},
			"unsupported machine type\nUse -machine help to list supported machines":                                     {"-machine", "nope"},
			"Property 'pc-q35-7.2-machine.nope' not found":                                                               {"-machine", "q35,nope=on"},
			"Parameter 'sata' expects 'on' or 'off'":                                                                     {"-machine", "q35,sata=maybe"},
		} {
			code, stderr := w.start(t, append([]string{"-display", "none", "-nodefaults", "-accel", "tcg", "-m", "64M"}, args...)...).result(t)
			require.Equal(t, 1, code, says)
			require.Equal(t, "qemu-system-x86_64: "+says+"\n", version.ReplaceAllString(stderr, "pc-q35-7.2-"))
		}
	},
	"a machine as castra shapes it": func(t *testing.T, w *world) {
		w.launch(t, "a", warm(w.args("a"), memfd, "-machine", "q35,memory-backend=ram0,sata=off,smbus=off,i8042=off,vmport=off,hpet=off",
			"-device", `{"driver":"vmgenid","guid":"auto"}`, "-device", `{"driver":"virtio-balloon-pci","free-page-reporting":true}`)...)
		c := w.dial(t, "a")
		var kind string
		require.NoError(t, c.Execute(t.Context(), "qom-get", map[string]any{"path": "/machine", "property": "type"}, &kind))
		require.Regexp(t, `^pc-q35-\d+\.\d+-machine$`, kind)
	},
	"what it says of itself": func(t *testing.T, w *world) {
		w.launch(t, "a", append(w.args("a"), "-cpu", "Nehalem,+aes")...)
		c := w.dial(t, "a")
		var version struct{ QEMU struct{ Major int } }
		require.NoError(t, c.Execute(t.Context(), "query-version", nil, &version))
		require.Positive(t, version.QEMU.Major)
		var cpus []struct {
			Path string `json:"qom-path"`
		}
		require.NoError(t, c.Execute(t.Context(), "query-cpus-fast", nil, &cpus))
		require.Len(t, cpus, 1)
		var model string
		require.NoError(t, c.Execute(t.Context(), "qom-get", map[string]any{"path": cpus[0].Path, "property": "type"}, &model))
		require.Equal(t, "Nehalem-x86_64-cpu", model)
		var features []map[string]any
		require.NoError(t, c.Execute(t.Context(), "qom-get", map[string]any{"path": cpus[0].Path, "property": "feature-words"}, &features))
		require.Contains(t, features[0], "features")
		require.NoError(t, c.Close()) // the race detector would see the next long answer overwrite this one
		c = w.dial(t, "a")
		var expanded struct {
			Model struct{ Props map[string]any }
		}
		require.NoError(t, c.Execute(t.Context(), "query-cpu-model-expansion", json.RawMessage(`{"type":"full","model":{"name":"max"}}`), &expanded))
		require.NotEmpty(t, expanded.Model.Props)
		require.NoError(t, c.Close())
		c = w.dial(t, "a")
		var able []struct{ Capability string }
		require.NoError(t, c.Execute(t.Context(), "query-migrate-capabilities", nil, &able))
		require.Contains(t, able, struct{ Capability string }{"x-ignore-shared"})
	},
	"refused commands": func(t *testing.T, w *world) {
		w.launch(t, "a", warm(w.args("a"), memfd)...)
		c := w.dial(t, "a")
		for command, x := range map[string][2]string{
			"migrate-incoming":           {`{"uri":"fd:3"}`, "'-incoming' was not specified on the command line"},
			"migrate":                    {`{}`, "Parameter 'uri' is missing"},
			"migrate-set-capabilities":   {`{"capabilities":[{"capability":"nope","state":true}]}`, "Parameter 'capability' does not accept value 'nope'"},
			"migrate-set-parameters":     {`{"announce-rounds":2000}`, "Parameter 'announce_rounds' expects a value between 0 and 1000"},
			"qom-get":                    {`{"path":"/machine"}`, "Parameter 'property' is missing"},
			"query-cpu-model-expansion":  {`{"type":"full","model":{"name":"nope"}}`, "CPU model 'nope' not found"},
			"migrate ":                   {`{"uri":"nope:x"}`, "Parameter 'uri' expects a valid migration protocol"},
			"migrate  ":                  {`{"nope":1,"uri":"x"}`, "Parameter 'nope' is unexpected"},
			"migrate-set-parameters ":    {`{"nope":1}`, "Parameter 'nope' is unexpected"},
			"migrate-set-capabilities ":  {`{}`, "Parameter 'capabilities' is missing"},
			"migrate-set-capabilities  ": {`{"capabilities":[{"capability":"x-ignore-shared"}]}`, "Parameter 'capabilities[0].state' is missing"},
		} {
			var refused *qmp.Error
			require.ErrorAs(t, c.Execute(t.Context(), strings.TrimSpace(command), json.RawMessage(x[0]), nil), &refused, command)
			require.Equal(t, "GenericError: "+x[1], refused.Class+": "+refused.Desc)
		}
		var refused *qmp.Error
		require.ErrorAs(t, c.Execute(t.Context(), "qom-get", map[string]any{"path": "/nope", "property": "type"}, nil), &refused)
		require.Equal(t, "DeviceNotFound", refused.Class)
	},
	"a migration that fails": func(t *testing.T, w *world) {
		v := w.launch(t, "a", warm(w.args("a"), memfd)...)
		c := w.dial(t, "a")
		require.NoError(t, c.Execute(t.Context(), "migrate_cancel", nil, nil), "there is none")
		require.NoError(t, c.Execute(t.Context(), "migrate-set-capabilities", ignoreShared(), nil))
		require.NoError(t, c.Execute(t.Context(), "migrate", map[string]any{"uri": "unix:/nonexistent/socket"}, nil))
		require.Equal(t, migrationStatus{"failed", "Failed to connect to '/nonexistent/socket': No such file or directory"}, w.migrated(t, c))
		require.Equal(t, "running", statusOf(t, c))
		w.save(t, v, c)
	},
}

var version = regexp.MustCompile(`pc-q35-\d+\.\d+-`)
