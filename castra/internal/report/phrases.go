package report

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"castra.example/castra/castra/event"
)

// slow is from when on work that is quiet deserves a line, in milliseconds.
const slow = 2000

// phrase says an event that stands for itself. Every kind has one; where the
// text of a whole command can say it better, text.go does.
func phrase(e event.Event) line {
	switch e := e.(type) {
	case event.Message:
		return messageLine(e)
	case event.OverlayPrepared:
		return line{rest: fmt.Sprintf("overlay prepared in %s: %s on %s", ms(e.ElapsedMS), e.Path, e.BaseImage), quiet: e.ElapsedMS < slow}
	case event.StartChosen:
		return startLine(e)
	case event.TemplateSaved:
		return savedLine(e)
	case event.Launched:
		return launchedLine(e)
	case event.Ready:
		head := "ready in " + ms(e.ElapsedMS)
		if e.Start != "" && e.Start != "cold" {
			head += " (" + e.Start + ")"
		}
		return line{style: green, head: head,
			rest: ": " + e.User + "@" + net.JoinHostPort(e.Host, strconv.Itoa(e.Port))}
	case event.Waiting:
		return line{style: faint, head: waitText(e)}
	case event.ImageProgress:
		return line{rest: "image " + e.Image + ": " + e.Phase + amount(e.Done, e.Total)}
	case event.ImageVerified:
		return line{rest: "image " + e.Image + ": verified in " + ms(e.ElapsedMS) + sized(e.Bytes), quiet: e.ElapsedMS < slow}
	case event.CopyProgress:
		return line{rest: copyHead(e) + amount(e.Done, e.Total)}
	case event.Cleanup:
		return line{rest: "removed " + e.What + " " + e.Path + sized(e.Bytes), quiet: true}
	case event.CommandAccepted, event.CommandRejected, event.CommandCompleted, event.CommandFailed, event.Summary:
		return commandLine(e)
	case event.ShutdownRequested, event.CooperativeAttempted, event.CooperativeSucceeded, event.CooperativeTimedOut,
		event.Escalated, event.Stopped, event.OverlayDiscarded:
		return shutdownLine(e)
	default:
		return bootstrapLine(e)
	}
}

func startLine(e event.StartChosen) line {
	rest := e.Start + " start"
	if e.Start != "cold" {
		rest = "start from a " + e.Stage + " template (" + e.Start + ")"
	}
	return line{rest: rest + because(e.Reason)}
}

func savedLine(e event.TemplateSaved) line {
	rest := "saved as a " + e.Stage + " template in " + ms(e.ElapsedMS) + sized(e.Bytes)
	if e.Start != "ram" {
		rest += ", without its memory" + because(e.Reason)
	}
	return line{rest: rest}
}

func commandLine(e event.Event) line {
	switch e := e.(type) {
	case event.CommandAccepted:
		return line{rest: e.Command + ": accepted", quiet: true}
	case event.CommandRejected:
		return line{style: red, head: e.Command + " refused", rest: because(e.Reason), quiet: true}
	case event.CommandCompleted:
		return line{rest: e.Command + ": completed in " + ms(e.ElapsedMS), quiet: true}
	case event.CommandFailed:
		return line{style: red, head: e.Command + " failed", rest: " after " + ms(e.ElapsedMS) + because(e.Error)}
	case event.Summary:
		l := line{style: bold, head: e.Command + ":", rest: " " + e.Text}
		if e.ElapsedMS > 0 {
			l.rest += ", " + ms(e.ElapsedMS)
		}
		return l
	default:
		return line{}
	}
}

func messageLine(e event.Message) line {
	l := line{rest: e.Text}
	switch e.Level {
	case "warning":
		l = line{style: yellow, head: "warning:", rest: " " + e.Text}
	case "error":
		l = line{style: red, head: "error:", rest: " " + e.Text}
	}
	if e.Hint != "" {
		l.notes = []string{"hint: " + e.Hint}
	}
	return l
}

func launchedLine(e event.Launched) line {
	parts := []string{
		fmt.Sprintf("launched: QEMU pid %d", e.PID), e.Accelerator, count(e.CPUs, "cpu"), Bytes(int64(e.MemoryMiB) << 20),
	}
	for _, f := range e.Forwards {
		to := strconv.Itoa(f.GuestPort)
		if f.Protocol != "" && f.Protocol != "tcp" {
			to += "/" + f.Protocol
		}
		parts = append(parts, net.JoinHostPort(f.HostIP, strconv.Itoa(f.HostPort))+" -> "+to)
	}
	return line{rest: strings.Join(parts, ", ")}
}

func shutdownLine(e event.Event) line {
	switch e := e.(type) {
	case event.ShutdownRequested:
		return line{rest: "shutting down: " + e.Reason, quiet: e.Reason == "" || e.Reason == "down"}
	case event.CooperativeAttempted:
		if e.Channel == "unavailable" {
			return line{style: yellow, head: "cannot be asked to power off", rest: because(e.Reason)}
		}
		rest := "asked to power off"
		if e.Reason != "" {
			rest += " (" + e.Reason + ")"
		}
		return line{rest: rest + ", at most " + ms(e.LimitMS)}
	case event.CooperativeSucceeded:
		return line{rest: "powered off in " + ms(e.ElapsedMS), quiet: true}
	case event.CooperativeTimedOut:
		reason := e.Reason
		if reason == "" {
			reason = "the guest did not power off"
		}
		return line{style: yellow, head: reason, rest: ", waited " + ms(e.ElapsedMS)}
	case event.Escalated:
		return line{rest: "sending " + e.Signal + ", at most " + ms(e.LimitMS)}
	case event.Stopped:
		return stoppedLine(e)
	case event.OverlayDiscarded:
		if e.Reason == "orphan" {
			return line{rest: "leftover overlay removed" + sized(e.Bytes)}
		}
		return line{rest: "overlay removed" + sized(e.Bytes) + ": " + e.Path, quiet: true}
	default:
		return line{}
	}
}

func stoppedLine(e event.Stopped) line {
	took := ms(e.TotalMS)
	switch e.Outcome {
	case "graceful":
		return line{style: green, head: "stopped", rest: " in " + took}
	case "terminated":
		return line{style: yellow, head: "stopped by SIGTERM", rest: " after " + took}
	case "killed":
		return line{style: yellow, head: "killed", rest: " after " + took}
	default:
		return line{rest: "was " + e.Outcome, quiet: !e.Changed}
	}
}

func bootstrapLine(e event.Event) line {
	switch e := e.(type) {
	case event.BootstrapPlanned:
		return line{rest: "bootstrap planned: " + e.Action + ", mode " + e.Mode + because(e.Reason), quiet: true}
	case event.BootstrapStarted:
		rest := "bootstrap run " + e.Run + ", at most " + ms(e.LimitMS)
		if e.Digest != "" {
			rest += ", digest " + e.Digest
		}
		return line{rest: rest, quiet: true}
	case event.BootstrapStep:
		return stepLine(e, "")
	case event.BootstrapOutput:
		// The noop marker is for Castra; BootstrapCompleted tells people.
		return line{rest: e.Line, raw: true, quiet: strings.TrimSpace(e.Line) == "Castra:noop"}
	case event.BootstrapFailed:
		l := line{style: red, head: "bootstrap failed", rest: " in " + e.Step + " after " + ms(e.ElapsedMS) + because(e.Error)}
		if e.Log != "" {
			l.notes = []string{"log: " + e.Log}
		}
		return l
	case event.BootstrapCompleted:
		l := line{style: green, head: "bootstrap " + e.Outcome, rest: " in " + ms(e.ElapsedMS)}
		switch e.Outcome {
		case "noop":
			l.head, l.rest = "bootstrap had nothing to do", ", "+ms(e.ElapsedMS)
		case "skipped":
			l.quiet = true
		}
		return l
	default:
		return line{}
	}
}

// stepLine names the steps that run the user's own code; the others only when
// they were slow. How a step failed is told by BootstrapFailed.
func stepLine(e event.BootstrapStep, script string) line {
	what := "bootstrap"
	if script != "" {
		what += " " + script
	}
	what += ": " + e.Step
	if e.Status == "started" {
		own := e.Step == "apply" || e.Step == "verify"
		return line{rest: what + " ...", quiet: !own}
	}
	rest := what + " " + e.Status + " in " + ms(e.ElapsedMS)
	if e.Detail != "" {
		rest += ", " + e.Detail
	}
	preparing := e.Step != "apply" && e.Step != "verify"
	return line{rest: rest, quiet: e.Status == "failed" || !preparing || e.ElapsedMS < slow}
}

// tally is what was removed of one kind.
type tally struct {
	what  string
	n     int
	bytes int64
}

func (t *text) tally(e event.Cleanup) {
	for i := range t.gone {
		if t.gone[i].what == e.What {
			t.gone[i].n++
			t.gone[i].bytes += e.Bytes
			return
		}
	}
	t.gone = append(t.gone, tally{e.What, 1, e.Bytes})
}

// removed sums up what Cleanup told, once: "removed: 1 image (52 MiB), 4 logs
// (12 KiB)".
func (t *text) removed() line {
	var parts []string
	for _, g := range t.gone {
		part := count(g.n, g.what)
		if g.bytes > 0 {
			part += " (" + Bytes(g.bytes) + ")"
		}
		parts = append(parts, part)
	}
	t.gone = nil
	if len(parts) == 0 || t.o.Verbose { // Verbose has named each
		return line{}
	}
	return line{rest: "removed: " + strings.Join(parts, ", ")}
}

func sized(n int64) string {
	if n <= 0 {
		return ""
	}
	return ", " + Bytes(n)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
