package report

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
)

var update = flag.Bool("update", false, "rewrite golden files")

var start = time.Date(2026, 11, 25, 13, 0, 0, 0, time.UTC)

// play reports the events one second apart.
func play(r event.Reporter, events []event.Event) {
	now := start
	for _, e := range events {
		r.Report(event.Record{Time: now, Workspace: "demo-1a2b", Event: e})
		now = now.Add(time.Second)
	}
}

func fwd(host, guest int) event.Forward {
	return event.Forward{HostIP: "127.0.0.1", HostPort: host, GuestPort: guest, Protocol: "tcp"}
}

func launched(vm string, pid, port int) event.Event {
	return event.Launched{VM: vm, PID: pid, Accelerator: "tcg", CPUs: 2, MemoryMiB: 512, Forwards: []event.Forward{fwd(port, 22), fwd(port+1, 80)}}
}

func steps(vm string) []event.Event {
	return []event.Event{
		event.BootstrapStarted{VM: vm, Run: "3fa1", Digest: "sha256:5e91", LimitMS: 300000},
		event.BootstrapStep{VM: vm, Run: "3fa1", Step: "connect", Status: "started"},
		event.BootstrapStep{VM: vm, Run: "3fa1", Step: "connect", Status: "completed", ElapsedMS: 40},
		event.BootstrapStep{VM: vm, Run: "3fa1", Step: "transfer", Status: "started"},
		event.BootstrapStep{VM: vm, Run: "3fa1", Step: "transfer", Status: "completed", ElapsedMS: 80},
		event.BootstrapStep{VM: vm, Run: "3fa1", Step: "apply", Status: "started"},
	}
}

func output(vm, line string) event.Event {
	return event.BootstrapOutput{VM: vm, Run: "3fa1", Stream: "stdout", Line: line}
}

func planned(vm, action, reason string) event.Event {
	return event.BootstrapPlanned{VM: vm, Mode: "auto", Action: action, Reason: reason, Script: "/p/bootstrap/web/run.sh"}
}

func join(parts ...any) []event.Event {
	var all []event.Event
	for _, p := range parts {
		switch p := p.(type) {
		case event.Event:
			all = append(all, p)
		case []event.Event:
			all = append(all, p...)
		}
	}
	return all
}

var emulated = event.Message{Level: "info", Text: "no hardware acceleration (/dev/kvm: permission denied): guests are emulated, and waits are 2.5 times as long"}

// transcripts are whole commands, as the door emits them.
var transcripts = map[string][]event.Event{
	"up": join(
		event.CommandAccepted{Command: "up"},
		event.ImageVerified{Image: "small", Path: "/h/small/disk.qcow2", ElapsedMS: 3},
		emulated,
		event.OverlayPrepared{VM: "web-0", Path: "/s/overlays/web.qcow2", BaseImage: "/s/base.qcow2", ElapsedMS: 41},
		event.OverlayPrepared{VM: "database-0", Path: "/s/overlays/db.qcow2", BaseImage: "/s/base.qcow2", ElapsedMS: 44},
		launched("web-0", 4711, 40123), launched("database-0", 4712, 40125),
		event.Waiting{VM: "web-0", For: "SSH", ElapsedMS: 5001, LimitMS: 300000},
		event.Waiting{VM: "database-0", For: "SSH", ElapsedMS: 5002, LimitMS: 300000},
		event.Ready{VM: "web-0", User: "root", Host: "127.0.0.1", Port: 40123, ElapsedMS: 5400},
		event.Waiting{VM: "database-0", For: "SSH", ElapsedMS: 6003, LimitMS: 300000},
		event.Waiting{VM: "database-0", For: "SSH", ElapsedMS: 10004, LimitMS: 300000},
		event.Ready{VM: "database-0", User: "root", Host: "127.0.0.1", Port: 40125, ElapsedMS: 11210},
		planned("web-0", "run", "fresh overlay"),
		event.BootstrapPlanned{VM: "database-0", Mode: "auto", Action: "run", Reason: "fresh overlay", Script: "/p/bootstrap/database/setup.sh"},
		steps("web-0"), event.Waiting{VM: "web-0", For: "bootstrap", ElapsedMS: 1001}, output("web-0", "configuring httpd"),
		steps("database-0"), output("database-0", "Castra:noop"),
		output("web-0", "httpd listens on 80\r"), output("web-0", ""), output("web-0", "\x1b[32mok\x1b[0m"),
		event.BootstrapStep{VM: "database-0", Run: "3fa1", Step: "apply", Status: "completed", ElapsedMS: 210},
		event.BootstrapCompleted{VM: "database-0", Run: "3fa1", Outcome: "noop", Log: "/s/logs/bootstrap/database-0.json", ElapsedMS: 330},
		event.BootstrapStep{VM: "web-0", Run: "3fa1", Step: "apply", Status: "completed", ElapsedMS: 700},
		event.BootstrapStep{VM: "web-0", Run: "3fa1", Step: "verify", Status: "started"},
		event.BootstrapStep{VM: "web-0", Run: "3fa1", Step: "verify", Status: "completed", ElapsedMS: 60},
		event.BootstrapCompleted{VM: "web-0", Run: "3fa1", Outcome: "applied", Log: "/s/logs/bootstrap/web-0.json", ElapsedMS: 940},
		event.CommandCompleted{Command: "up", ElapsedMS: 12600},
		event.Summary{Command: "up", Text: "2 VMs running", ElapsedMS: 12600},
	),
	"up-already": join(
		event.CommandAccepted{Command: "up"},
		planned("web-1", "skip", "done already"), planned("web-0", "skip", "done already"),
		event.CommandCompleted{Command: "up", ElapsedMS: 38},
		event.Summary{Command: "up", Text: "2 VMs running as configured, nothing to do", ElapsedMS: 38},
	),
	"up-launch-failed": join(
		event.CommandAccepted{Command: "up"},
		event.Message{VM: "web-1", Level: "warning", Text: "forward 0.0.0.0:8080 can be reached from other computers", Hint: "leave host_ip out to stay on 127.0.0.1"},
		launched("web-0", 4711, 40123),
		event.Message{VM: "web-1", Level: "error", Text: "QEMU said last:\nqemu-system-x86_64: warning: TCG doesn't support requested feature\nqemu-system-x86_64: -netdev user: Could not set up host forwarding rule 'tcp:0.0.0.0:8080-:80'"},
		event.ShutdownRequested{VM: "web-0", Reason: "up failed"},
		event.Escalated{VM: "web-0", Signal: "SIGTERM", LimitMS: 2000},
		event.Stopped{VM: "web-0", Outcome: "terminated", TotalMS: 130, Changed: true},
		event.OverlayDiscarded{VM: "web-0", Path: "/s/overlays/web.qcow2", Bytes: 196 << 10, Reason: "shutdown"},
		event.Stopped{VM: "web-1", Outcome: "not running", TotalMS: 1},
		event.OverlayDiscarded{VM: "web-1", Path: "/s/overlays/web-1.qcow2", Bytes: 196 << 10, Reason: "orphan"},
		event.CommandFailed{Command: "up", Error: "up web-1: launch: QEMU ended: exit status 1", ElapsedMS: 1240},
	),
	"up-bootstrap-failed": join(
		event.CommandAccepted{Command: "up"},
		launched("web-0", 4711, 40123),
		event.Ready{VM: "web-0", User: "root", Host: "127.0.0.1", Port: 40123, ElapsedMS: 5400},
		planned("web-0", "run", "the last run failed"),
		steps("web-0"),
		output("web-0", "fetching httpd"), output("web-0", "apk: no such package: htpd\nweb-1  ready in 0.1 s"),
		event.BootstrapStep{VM: "web-0", Run: "3fa1", Step: "apply", Status: "failed", Detail: "exit status 3", ElapsedMS: 700},
		event.BootstrapFailed{VM: "web-0", Run: "3fa1", Step: "apply", Error: "exit status 3", Log: "/s/logs/bootstrap/web-0.json", ElapsedMS: 910},
		event.CommandFailed{Command: "up", Error: "up web-0: bootstrap: apply: exit status 3", ElapsedMS: 6400},
	),
	"down": join(
		event.CommandAccepted{Command: "down"},
		event.ShutdownRequested{VM: "web-0", Reason: "down"}, event.ShutdownRequested{VM: "web-1", Reason: "down"},
		event.ShutdownRequested{VM: "web-2", Reason: "down"},
		event.CooperativeAttempted{VM: "web-0", Channel: "qmp", Reason: "ACPI power button", LimitMS: 20000},
		event.CooperativeAttempted{VM: "web-1", Channel: "qmp", Reason: "ACPI power button", LimitMS: 20000},
		event.CooperativeAttempted{VM: "web-2", Channel: "unavailable", Reason: "the monitor's socket is gone"},
		event.Escalated{VM: "web-2", Signal: "SIGTERM", LimitMS: 10000},
		event.Stopped{VM: "web-2", Outcome: "terminated", TotalMS: 140, Changed: true},
		event.OverlayDiscarded{VM: "web-2", Path: "/s/overlays/web-2.qcow2", Bytes: 5 << 20, Reason: "shutdown"},
		event.CooperativeSucceeded{VM: "web-0", ElapsedMS: 3180},
		event.Stopped{VM: "web-0", Outcome: "graceful", TotalMS: 3200, Changed: true},
		event.OverlayDiscarded{VM: "web-0", Path: "/s/overlays/web-0.qcow2", Bytes: 9 << 20, Reason: "shutdown"},
		event.CooperativeTimedOut{VM: "web-1", Reason: "the guest did not power off", ElapsedMS: 20003},
		event.Escalated{VM: "web-1", Signal: "SIGTERM", LimitMS: 10000},
		event.Escalated{VM: "web-1", Signal: "SIGKILL", LimitMS: 5000},
		event.Stopped{VM: "web-1", Outcome: "killed", TotalMS: 30210, Changed: true},
		event.OverlayDiscarded{VM: "web-1", Path: "/s/overlays/web-1.qcow2", Bytes: 9 << 20, Reason: "shutdown"},
		event.CommandCompleted{Command: "down", ElapsedMS: 30260},
		event.Summary{Command: "down", Text: "3 VMs stopped, 23 MiB given back", ElapsedMS: 30260},
	),
	"down-nothing": {event.Summary{Command: "down", Text: "nothing runs"}},
	"clean": join(
		event.CommandAccepted{Command: "clean"},
		event.Cleanup{Path: "/s/images/alpine-minimal.qcow2", What: "image", Bytes: 52 << 20},
		event.Cleanup{Path: "/s/logs/web-0.log", What: "log", Bytes: 1200},
		event.Cleanup{Path: "/s/logs/web-0-serial.log", What: "log", Bytes: 48 << 10},
		event.Cleanup{Path: "/s/metadata/session.json", What: "record", Bytes: 900},
		event.Cleanup{Path: "/s/web-0.qmp", What: "socket"},
		event.CommandCompleted{Command: "clean", ElapsedMS: 12},
		event.Summary{Command: "clean", Text: "5 entries removed, 52 MiB given back", ElapsedMS: 12},
	),
	"copy": join(
		event.CopyProgress{VM: "web-0", Source: "site.tar", Target: "web-0:/srv", Total: 3 << 20},
		event.CopyProgress{VM: "web-0", Source: "site.tar", Target: "web-0:/srv", Done: 512 << 10, Total: 3 << 20},
		event.CopyProgress{VM: "web-0", Source: "site.tar", Target: "web-0:/srv", Done: 1 << 20, Total: 3 << 20},
		event.CopyProgress{VM: "web-0", Source: "site.tar", Target: "web-0:/srv", Done: 1200 << 10, Total: 3 << 20},
		event.CopyProgress{VM: "web-0", Source: "site.tar", Target: "web-0:/srv", Done: 1300 << 10, Total: 3 << 20},
		event.CopyProgress{VM: "web-0", Source: "site.tar", Target: "web-0:/srv", Done: 2 << 20, Total: 3 << 20},
		event.CopyProgress{VM: "web-0", Source: "site.tar", Target: "web-0:/srv", Done: 3 << 20, Total: 3 << 20},
		event.CopyProgress{VM: "web-0", Source: "web-0:/var/log", Target: "out", Done: 9 << 20},
		event.CopyProgress{VM: "web-0", Source: "one.txt", Target: "web-0:/srv", Done: 12, Total: 12},
		event.CommandFailed{Command: "copy", Error: "copy web-0: connection lost", ElapsedMS: 8000},
	),
	"image": join(
		event.ImageProgress{Image: "small", Phase: "updating package lists"},
		event.ImageProgress{Image: "small", Phase: "fetching 31 packages"},
		event.ImageProgress{Image: "alpine-3.23", Phase: "download", Done: 0, Total: 50 << 20},
		event.ImageProgress{Image: "alpine-3.23", Phase: "download", Done: 9 << 20, Total: 50 << 20},
		event.ImageProgress{Image: "alpine-3.23", Phase: "download", Done: 17 << 20, Total: 50 << 20},
		event.ImageProgress{Image: "alpine-3.23", Phase: "download", Done: 24 << 20, Total: 50 << 20},
		event.ImageProgress{Image: "alpine-3.23", Phase: "download", Done: 33 << 20, Total: 50 << 20},
		event.ImageProgress{Image: "alpine-3.23", Phase: "download", Done: 41 << 20, Total: 50 << 20},
		event.ImageProgress{Image: "alpine-3.23", Phase: "download", Done: 50 << 20, Total: 50 << 20},
		event.ImageVerified{Image: "alpine-3.23", Path: "/h/alpine.qcow2", Digest: "sha512:ab", Bytes: 50 << 20, ElapsedMS: 7400},
		event.ImageVerified{Image: "small", Path: "/h/small.qcow2", ElapsedMS: 8100},
	),
}

func TestTranscripts(t *testing.T) {
	for name, events := range transcripts {
		for kind, o := range map[string]TextOptions{
			"plain":    {},
			"color":    {Color: true},
			"verbose":  {Verbose: true},
			"terminal": {Color: true, Width: 80},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				var b bytes.Buffer
				play(NewText(&b, o), events)
				golden(t, name+"."+kind, b.String())
			})
		}
	}
}

func golden(t *testing.T, name, got string) {
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// Verbose hides nothing: every event of the transcripts says something, but for
// waits, which are thinned.
func TestVerboseTellsEveryEvent(t *testing.T) {
	for name, events := range transcripts {
		for _, e := range events {
			if bf, ok := e.(event.BootstrapOutput); ok && bf.Line == "" {
				continue
			}
			if _, ok := e.(event.Waiting); ok {
				continue
			}
			var b bytes.Buffer
			play(NewText(&b, TextOptions{Verbose: true}), []event.Event{e})
			require.NotEmpty(t, strings.TrimSpace(b.String()), "%s: %s", name, e.Kind())
		}
	}
}

func TestNoForeignControlBytes(t *testing.T) {
	evil := "x\x1b]0;title\x07\x9b31m\u202e\u009b2J\rweb-9  ready\x00"
	for _, e := range []event.Event{
		event.Message{VM: evil, Level: "error", Text: evil, Hint: evil},
		event.Launched{VM: "a", Accelerator: evil, Forwards: []event.Forward{{HostIP: evil, Protocol: evil}}},
		event.Waiting{VM: evil, For: evil}, event.Ready{VM: evil, User: evil, Host: evil},
		event.BootstrapPlanned{VM: evil, Mode: evil, Action: evil, Reason: evil, Script: evil},
		event.BootstrapStep{VM: evil, Step: evil, Status: evil, Detail: evil},
		event.BootstrapOutput{VM: evil, Line: evil}, event.BootstrapFailed{VM: evil, Step: evil, Error: evil, Log: evil},
		event.CooperativeTimedOut{VM: evil, Reason: evil}, event.Stopped{VM: evil, Outcome: evil, Changed: true},
		event.ImageProgress{Image: evil, Phase: evil, Done: 1, Total: 2},
		event.CopyProgress{VM: evil, Source: evil, Target: evil, Done: 1, Total: 2}, event.Cleanup{Path: evil, What: evil},
		event.CommandFailed{Command: evil, Error: evil}, event.Summary{Command: evil, Text: evil},
	} {
		for _, width := range []int{0, 80} {
			var b bytes.Buffer
			r := NewText(&b, TextOptions{Verbose: true, Width: width})
			play(r, []event.Event{e, event.Summary{Command: "up"}})
			got := ourControls.ReplaceAllString(b.String(), "")
			require.Equal(t, Sanitize(got), got, "%s", e.Kind())
		}
	}
}

func TestNameColours(t *testing.T) {
	seen := map[string]string{}
	for i := range 5 {
		vm := fmt.Sprint("web-", i)
		require.NotContains(t, seen, nameColour(vm))
		seen[nameColour(vm)] = vm
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestWriteErrorsDoNotStopTheWork(t *testing.T) {
	require.NotPanics(t, func() {
		play(NewText(broken{}, TextOptions{Width: 80}), transcripts["up"])
		play(NewJSON(broken{}), transcripts["up"])
	})
}
