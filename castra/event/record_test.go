package event

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite golden files")

var at = time.Date(2026, 11, 25, 14, 3, 5, 7_900_000, time.FixedZone("", 3600))

// examples holds one filled value of every event.
var examples = []Event{
	Message{VM: "web-0", Level: "warning", Text: "forward on 0.0.0.0 & <all>", Hint: "set host_ip"},
	OverlayPrepared{VM: "web-0", Path: "/s/overlays/web.qcow2", BaseImage: "/s/images/base.qcow2", ElapsedMS: 41},
	StartChosen{VM: "web-0", Start: "ram", Stage: "ready", Template: "0f3a", Reason: "its role was saved before"},
	Launched{VM: "web-0", PID: 4711, Accelerator: "tcg", CPUs: 2, MemoryMiB: 512, Forwards: []Forward{
		{HostIP: "127.0.0.1", HostPort: 40123, GuestPort: 22, Protocol: "tcp"},
	}},
	Waiting{VM: "web-0", For: "SSH", ElapsedMS: 5000, LimitMS: 300000},
	Ready{VM: "web-0", User: "root", Host: "127.0.0.1", Port: 40123, Start: "cold", ElapsedMS: 5400},
	TemplateSaved{VM: "web-0", Template: "0f3a", Stage: "bootstrapped", Start: "disk", Reason: "the guest cannot be woken", Bytes: 1 << 20, ElapsedMS: 90},
	CopyProgress{VM: "web-0", Source: "site.tar", Target: "web-0:/srv", Done: 1 << 20, Total: 3 << 20},
	ShutdownRequested{VM: "web-0", Reason: "down"},
	CooperativeAttempted{VM: "web-0", Channel: "unavailable", Reason: "no socket", LimitMS: 20000},
	CooperativeSucceeded{VM: "web-0", ElapsedMS: 900},
	CooperativeTimedOut{VM: "web-0", Reason: "still running", ElapsedMS: 20000},
	Escalated{VM: "web-0", Signal: "SIGTERM", LimitMS: 10000},
	Stopped{VM: "web-0", Outcome: "killed", TotalMS: 31000, Changed: true},
	OverlayDiscarded{VM: "web-0", Path: "/s/overlays/web.qcow2", Bytes: 1 << 20, Reason: "orphan"},
	ImageProgress{Image: "alpine", Phase: "download", Done: 10, Total: 100},
	ImageVerified{Image: "alpine", Path: "/s/images/a.qcow2", Digest: "sha512:ab", Bytes: 100, ElapsedMS: 12},
	BootstrapPlanned{VM: "web-0", Mode: "auto", Action: "run", Reason: "never ran", Script: "/p/run.sh"},
	BootstrapStarted{VM: "web-0", Run: "r1", Digest: "sha256:3b1f", LimitMS: 120000},
	BootstrapStep{VM: "web-0", Run: "r1", Step: "apply", Status: "failed", Detail: "exit status 3", ElapsedMS: 80},
	BootstrapOutput{VM: "web-0", Run: "r1", Stream: "stderr", Line: "a\x1b[31mb"},
	BootstrapCompleted{VM: "web-0", Run: "r1", Outcome: "applied", Log: "/s/logs/b.json", ElapsedMS: 900},
	BootstrapFailed{VM: "web-0", Run: "r1", Step: "apply", Error: "exit status 3", Log: "/s/logs/b.json", ElapsedMS: 900},
	Cleanup{Path: "/s/images/a.qcow2", What: "image", Bytes: 100},
	CommandAccepted{Command: "up"},
	CommandRejected{Command: "up", Reason: "no castra.toml"},
	CommandCompleted{Command: "up", ElapsedMS: 7100},
	CommandFailed{Command: "up", Error: "web-0: no", ElapsedMS: 7100},
	Summary{Command: "up", Text: "2 VMs running", ElapsedMS: 7100},
}

// Every struct of event.go that is an event must be in the table, once.
func TestTableIsComplete(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	require.NoError(t, err)
	var declared []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if ok {
			if _, isStruct := spec.Type.(*ast.StructType); isStruct && spec.Name.Name != "Forward" {
				declared = append(declared, spec.Name.Name)
			}
		}
		return true
	})
	var listed []string
	for _, e := range all {
		listed = append(listed, reflect.TypeOf(e).Name())
	}
	require.ElementsMatch(t, declared, listed)

	kinds := Kinds()
	slices.Sort(kinds)
	require.Equal(t, len(kinds), len(slices.Compact(kinds)), "two events share a kind")

	var shown []Kind
	for _, e := range examples {
		shown = append(shown, e.Kind())
	}
	require.Equal(t, Kinds(), shown, "one example of every kind, in the table's order")
}

func TestExamplesAreFilled(t *testing.T) {
	for _, e := range examples {
		v := reflect.ValueOf(e)
		for i := range v.NumField() {
			require.False(t, v.Field(i).IsZero(), "%s.%s: a zero value proves no round trip", v.Type(), v.Type().Field(i).Name)
		}
		if v.FieldByName("VM").IsValid() {
			require.Equal(t, "web-0", e.Subject())
		} else {
			require.Empty(t, e.Subject())
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, zero := range []bool{false, true} {
		events := examples
		if zero {
			events = all
		}
		for _, e := range events {
			in := Record{Time: at.Truncate(time.Millisecond).UTC(), Workspace: "demo-1a2b", Event: e}
			line, err := json.Marshal(in)
			require.NoError(t, err)
			var out Record
			require.NoError(t, json.Unmarshal(line, &out), "%s", line)
			require.Equal(t, in, out)
		}
	}
}

func TestOwnFieldsNeverShadowTheRecord(t *testing.T) {
	for _, e := range examples {
		own, err := encode(e)
		require.NoError(t, err)
		var fields map[string]any
		require.NoError(t, json.Unmarshal(own, &fields))
		require.NotEmpty(t, fields, "%s", e.Kind())
		for _, key := range []string{"time", "type", "workspace", "vm"} {
			require.NotContains(t, fields, key, "%s", e.Kind())
		}
	}
}

// testdata/examples.jsonl is what the README shows and other programs may be
// tested with: one example of every kind, and nothing else.
func TestExamplesFile(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, e := range examples {
		require.NoError(t, enc.Encode(Record{Time: at, Workspace: "demo-1a2b", Event: e}))
	}
	golden := filepath.Join("testdata", "examples.jsonl")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o644))
	}
	file, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(file), b.String())

	var kinds []Kind
	for line := range strings.Lines(string(file)) {
		var r Record
		require.NoError(t, json.Unmarshal([]byte(line), &r), "%s", line)
		kinds = append(kinds, r.Event.Kind())
		again, err := encode(r)
		require.NoError(t, err)
		require.Equal(t, line, string(again)+"\n")
	}
	require.Equal(t, Kinds(), kinds)
}

func TestUnmarshalFaults(t *testing.T) {
	var r Record
	err := json.Unmarshal([]byte(`{"time":"2026-11-25T13:03:05.007Z","type":"vm.teleported","workspace":"w"}`), &r)
	require.ErrorIs(t, err, ErrUnknownKind)
	require.ErrorContains(t, err, "vm.teleported")

	for name, line := range map[string]string{
		"no time":    `{"type":"summary"}`,
		"bad time":   `{"time":"yesterday","type":"summary"}`,
		"wrong type": `{"time":"2026-11-25T13:03:05Z","type":"vm.launched","pid":"x"}`,
		"no object":  `[]`,
	} {
		err := json.Unmarshal([]byte(line), &r)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, ErrUnknownKind, name)
	}
}

func TestUnmarshalIgnoresUnknownFields(t *testing.T) {
	var r Record
	line := `{"time":"2026-11-25T13:03:05Z","type":"vm.ready","workspace":"w","vm":"a","port":7,"later":true}`
	require.NoError(t, json.Unmarshal([]byte(line), &r))
	require.Equal(t, Ready{VM: "a", Port: 7}, r.Event)
}

func TestMarshalNeedsAnEvent(t *testing.T) {
	_, err := json.Marshal(Record{Time: at})
	require.ErrorContains(t, err, "without an event")
}

func FuzzRecord(f *testing.F) {
	for _, e := range examples {
		line, err := json.Marshal(Record{Time: at, Workspace: "w", Event: e})
		require.NoError(f, err)
		f.Add(string(line))
	}
	f.Fuzz(func(t *testing.T, line string) {
		var r Record
		if json.Unmarshal([]byte(line), &r) != nil {
			return
		}
		if y := r.Time.UTC().Year(); y < 0 || y > 9999 {
			return // RFC 3339 cannot say it
		}
		out, err := json.Marshal(r)
		require.NoError(t, err)
		var again Record
		require.NoError(t, json.Unmarshal(out, &again), "%s", out)
	})
}
