package castra

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/logs"
	"castra.example/castra/castra/internal/report"
)

// LogOptions say which logs are shown. The zero value is the last 200 lines of
// every log of every VM.
type LogOptions struct {
	VM     string   // a name, or the role of a lone replica; "" is all
	Kinds  []string // of "qemu", "serial", "bootstrap"; empty is all
	Tail   int      // lines of each log; 0 is 200, less than 0 none
	Follow bool     // go on with what is written, until ctx ends
	Color  bool     // for a terminal
	// Raw leaves control characters as the guest wrote them. Do not show that
	// on a terminal.
	Raw bool
}

const defaultTail = 200

// logKinds in the order in which they are shown.
var logKinds = []string{"qemu", "serial", "bootstrap"}

// Logs writes what QEMU, the guests' serial ports and the bootstrap scripts
// printed, each line with the VM and the kind of log in front. The logs of the
// VMs' present run are shown, or of the last one; those of the run before stand
// beside them on disk, with .1 behind. A VM that never ran has none, and that is
// no error.
func (p *Project) Logs(ctx context.Context, o LogOptions, w io.Writer) error {
	vms, err := p.logged(o.VM)
	if err != nil {
		return err
	}
	if o.Tail == 0 {
		o.Tail = defaultTail
	}
	for _, kind := range o.Kinds {
		if !slices.Contains(logKinds, kind) {
			return &usageError{fmt.Sprintf("log %q: there is none of that kind", kind), "the kinds are " + strings.Join(logKinds, ", ")}
		}
	}
	out := &logWriter{w: w, o: o}
	for _, vm := range vms {
		out.column = max(out.column, len(vm)+len(" bootstrap"))
	}
	out.bootstraps(vms)
	if !o.Follow {
		for _, f := range p.logFiles(vms, o.Kinds) {
			out.tail(f)
		}
		out.journal(p.layout().EventLog())
		if !out.wrote && out.err == nil {
			_, out.err = fmt.Fprintln(w, report.Sanitize("no logs yet: "+strings.Join(vms, ", ")))
		}
		return out.err
	}
	out.journal(p.layout().EventLog())
	if out.err != nil {
		return out.err
	}
	return p.follow(ctx, out, vms)
}

// follow goes on with what is written, until ctx ends or the reader of the lines
// has gone.
func (p *Project) follow(ctx context.Context, out *logWriter, vms []string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out.failed = stop
	var fault error
	var following sync.WaitGroup
	following.Go(func() {
		journal := []logs.File{{Path: p.layout().EventLog()}}
		_ = logs.Follow(ctx, func() []logs.File { return journal }, 0, func(_, line string) { out.event(line) })
	})
	fault = logs.Follow(ctx, func() []logs.File { return p.logFiles(vms, out.o.Kinds) }, max(out.o.Tail, 0), out.line)
	following.Wait()
	if out.err != nil {
		return out.err
	}
	return fault
}

// logged names the VMs whose logs are meant.
func (p *Project) logged(vm string) ([]string, error) {
	records, _, err := p.records() // what is wrong with the session is no reason to hide logs
	if err != nil {
		return nil, err
	}
	known := p.known(records)
	if vm == "" {
		return known, nil
	}
	name, err := resolve(vm, p.roles(records), known)
	return []string{name}, err
}

// logFiles are the logs that there may be.
func (p *Project) logFiles(vms, kinds []string) []logs.File {
	var files []logs.File
	l := p.layout()
	for _, vm := range vms {
		if wants(kinds, "qemu") {
			files = append(files, logs.File{Path: l.QEMULog(vm), Prefix: vm + " qemu"})
		}
		if wants(kinds, "serial") {
			files = append(files, logs.File{Path: l.SerialLog(vm), Prefix: vm + " serial"})
		}
	}
	return files
}

func wants(kinds []string, kind string) bool { return len(kinds) == 0 || slices.Contains(kinds, kind) }

// logWriter prints lines with their origin in front.
type logWriter struct {
	o      LogOptions
	column int
	boots  map[string]bool // VMs whose bootstraps are shown
	failed func()          // called when a line cannot be written

	mu    sync.Mutex
	w     io.Writer
	wrote bool
	err   error
}

func (l *logWriter) line(origin, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	if !l.o.Raw {
		text = report.Sanitize(text)
	}
	if _, l.err = fmt.Fprintf(l.w, "%s %s\n", report.Origin(origin, l.column, l.o.Color), text); l.err != nil && l.failed != nil {
		l.failed()
	}
	l.wrote = true
}

func (l *logWriter) tail(f logs.File) {
	lines, err := logs.Tail(f.Path, max(l.o.Tail, 0))
	if err != nil {
		lines = []string{"(" + err.Error() + ")"}
	}
	for _, text := range lines {
		l.line(f.Prefix, text)
	}
}

// bootstraps says whose bootstraps are shown. What their scripts printed, as
// they did, stands in the stream of events alone.
func (l *logWriter) bootstraps(vms []string) {
	l.boots = map[string]bool{}
	for _, vm := range vms {
		l.boots[vm] = wants(l.o.Kinds, "bootstrap")
	}
}

// journal prints the last lines of each VM's bootstraps.
func (l *logWriter) journal(path string) {
	lines, err := logs.Tail(path, journalLines)
	if err != nil {
		return // it is of no VM, and mage bus tells
	}
	var mine []string
	left := map[string]int{}
	for _, line := range slices.Backward(lines) {
		if vm, _ := bootstrapLine(line); l.boots[vm] && left[vm] < l.o.Tail {
			left[vm]++
			mine = append(mine, line)
		}
	}
	for _, line := range slices.Backward(mine) {
		l.event(line)
	}
}

// journalLines is more than the stream of events holds.
const journalLines = 1 << 20

func (l *logWriter) event(line string) {
	if vm, text := bootstrapLine(line); l.boots[vm] {
		l.line(vm+" bootstrap", text)
	}
}

// bootstrapLine is what a line of events.jsonl tells of a bootstrap; vm is ""
// where it tells nothing.
func bootstrapLine(line string) (vm, text string) {
	var r event.Record
	if !strings.Contains(line, `"bootstrap.`) || json.Unmarshal([]byte(line), &r) != nil {
		return "", ""
	}
	switch e := r.Event.(type) {
	case event.BootstrapStarted:
		return e.VM, fmt.Sprintf("--- run %s, %s", e.Run, r.Time.Local().Format(time.DateTime))
	case event.BootstrapOutput:
		return e.VM, e.Line
	case event.BootstrapCompleted:
		return e.VM, fmt.Sprintf("--- %s; %s", e.Outcome, e.Log)
	case event.BootstrapFailed:
		return e.VM, fmt.Sprintf("--- failed in %s: %s; %s", e.Step, e.Error, e.Log)
	default:
		return "", ""
	}
}
