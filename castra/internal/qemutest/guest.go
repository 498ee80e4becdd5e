package qemutest

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// guestDirs, beside the links, holds a directory for each guest, which is the
// home of its commands, and a file with its [Guest].
const guestDirs = "guests"

// Guest is what tests may know of a fake guest.
type Guest struct {
	Name     string // of the VM
	PID      int    // of the QEMU
	Boot     int    // number of its boot among those of all VMs; a restored guest has that of the saved one
	Restored bool
	Hostname string
	// ClockOff is the guest's clock minus this computer's. The clock stands
	// still while the guest is stopped, and so does that of a saved one.
	ClockOff time.Duration
	Wakes    []Wake
	// Kept are the command lines that were answered and not run, because they
	// would have changed this computer, those about the waking program left out.
	Kept []string
}

// Wake is one run of the program that wakes a restored guest.
type Wake struct {
	Time     time.Time // that it was told
	Hostname string
	Bits     int32 // of entropy that the seed was said to have
	Seed     []byte
}

// Guests tells of every guest whose QEMU was started from dir, the ended ones
// among them, in the order of their VMs' names and the pids.
func Guests(t testing.TB, dir string) []Guest {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, guestDirs, "*.json"))
	if err != nil {
		t.Fatalf("fake guest: %v", err)
	}
	var guests []Guest
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("fake guest: %v", err)
		}
		var g Guest
		if err := json.Unmarshal(text, &g); err != nil {
			t.Fatalf("fake guest: %s: %v", file, err)
		}
		guests = append(guests, g)
	}
	slices.SortFunc(guests, func(a, b Guest) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), a.PID-b.PID)
	})
	return guests
}

// guest is a Guest that lives.
type guest struct {
	mu       sync.Mutex
	file     string // where its Guest is written; "" for nowhere
	is       Guest
	program  string        // path of the waking program in the guest; "" where there is none
	memory   string        // what the guest's memory begins with; "" before it first runs
	clock    time.Time     // of the guest, when it last began or ceased to run
	workload time.Duration // for which it had run by then
	since    time.Time     // when it last began to run; zero while it stands still
}

func newGuest(name, file string) *guest {
	return &guest{file: file, is: Guest{Name: name, Hostname: name, PID: os.Getpid()}, clock: time.Now()}
}

// run starts or stops the guest's clock and its workload.
func (g *guest) run(running bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if running == !g.since.IsZero() {
		return
	}
	g.clock, g.workload = g.now()
	g.since = time.Time{}
	if running {
		g.since = time.Now()
		g.write()
	}
}

// now is the guest's time, and for how long it has run. The caller holds mu.
func (g *guest) now() (clock time.Time, workload time.Duration) {
	if g.since.IsZero() {
		return g.clock, g.workload
	}
	passed := time.Since(g.since)
	return g.clock.Add(passed), g.workload + passed
}

func (g *guest) hostname() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.is.Hostname
}

// environment is what commands in the guest are told of it.
func (g *guest) environment() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	clock, workload := g.now()
	return []string{
		"CASTRA_FAKE_GUEST=" + g.is.Hostname,
		fmt.Sprintf("CASTRA_FAKE_CLOCK=%d", clock.UnixMilli()),
		fmt.Sprintf("CASTRA_FAKE_WORKLOAD=%d", workload.Milliseconds()),
	}
}

// firstRun gives the guest what its memory begins with.
func (g *guest) firstRun() (memory string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.memory = fmt.Sprintf("fake guest memory\nboot %d of %s\n", g.is.Boot, g.is.Name)
	return g.memory
}

// state is the Guest of now.
func (g *guest) state() Guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current()
}

func (g *guest) current() Guest {
	clock, _ := g.now()
	g.is.ClockOff = time.Until(clock)
	is := g.is
	is.Wakes, is.Kept = slices.Clone(is.Wakes), slices.Clone(is.Kept)
	return is
}

// write lets other processes see the Guest. The caller holds mu. A file that
// cannot be written is missed by the test that reads it.
func (g *guest) write() {
	if g.file == "" {
		return
	}
	text, _ := json.MarshalIndent(g.current(), "", "\t")
	if os.WriteFile(g.file+".new", text, 0o600) == nil {
		_ = os.Rename(g.file+".new", g.file)
	}
}

// A command line runs in a shell of this computer. One that names what is
// below here would change the computer itself, so it is answered and not run.
var ofTheGuest = []string{
	"/castra/wake", "/run/castra", "/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/machine-id", "/proc/sys/vm", "/proc/sys/kernel/hostname",
}

const (
	wakeProgram = "/run/castra/wake" // where the guest says that the program was put
	notFound    = 127
)

var wakeLine = regexp.MustCompile(`^(?:exec )?(?:sudo -n )?'?(/\S*/castra/wake)'?$`)

// renameLine is a script that runs the waking program and then writes down the guest's new name.
var renameLine = regexp.MustCompile(`(?s)^(?:exec )?(?:sudo -n )?sh -c .* sh '?(/\S*/castra/wake)'? \S+ \S+ '?[0-9a-f]{32}'?$`)

// serve answers a command line that must not be run here; served is false for
// any other.
func (g *guest) serve(line string, in io.Reader, out, errOut io.Writer) (status int, served bool) {
	line = strings.TrimSpace(line)
	if m := wakeLine.FindStringSubmatch(line); m != nil {
		return g.wake(m[1], in, errOut), true
	}
	if m := renameLine.FindStringSubmatch(line); m != nil {
		g.keep(line)
		return g.wake(m[1], in, errOut), true
	}
	if !slices.ContainsFunc(ofTheGuest, func(path string) bool { return strings.Contains(line, path) }) {
		return 0, false
	}
	size, err := io.Copy(io.Discard, in)
	if err != nil {
		return 1, true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if size > 0 && strings.Contains(line, "/castra/wake") {
		g.program = wakeProgram
		fmt.Fprintln(out, wakeProgram)
		return 0, true
	}
	g.is.Kept = append(g.is.Kept, line)
	g.write()
	return 0, true
}

func (g *guest) keep(line string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.is.Kept = append(g.is.Kept, line)
}

// wakeMessage is what the waking program reads: castra/internal/warm/wake.go.
type wakeMessage struct {
	Sec, Nsec  int64
	Bits, Size int32
	Random     [256]byte
	HostLen    int64
	Host       [64]byte
}

// wake is the waking program. Its status names the step that failed, as in
// package warm.
func (g *guest) wake(program string, in io.Reader, errOut io.Writer) int {
	if !g.hasProgram(program) {
		fmt.Fprintf(errOut, "sh: 1: %s: not found\n", program)
		return notFound
	}
	var m wakeMessage
	err := binary.Read(in, binary.LittleEndian, &m)
	switch {
	case err != nil:
		return 1
	case m.Sec < 0 || m.Nsec < 0 || m.Nsec >= 1e9:
		return 2
	case m.Size != int32(len(m.Random)) || m.Bits < 0 || m.Bits > m.Size*8:
		return 3
	case m.HostLen < 1 || m.HostLen > int64(len(m.Host)):
		return 5
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	told := time.Unix(m.Sec, m.Nsec)
	_, g.workload = g.now()
	g.clock = told
	if !g.since.IsZero() {
		g.since = time.Now()
	}
	g.is.Hostname = string(m.Host[:m.HostLen])
	g.is.Wakes = append(g.is.Wakes, Wake{told, g.is.Hostname, m.Bits, m.Random[:]})
	g.write()
	return 0
}

func (g *guest) hasProgram(path string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.program == path
}

// stubs are programs of the guest that would change this computer. hostname
// and date tell and do not set; sudo runs what it is given.
var stubs = map[string]string{
	"hostname": "case $1 in ''|-*) echo \"$CASTRA_FAKE_GUEST\";; esac\n",
	"date": "for word; do case $word in -s*|--set*) exit 0;; esac; done\n" +
		"PATH=${PATH#*:} exec date \"$@\"\n",
	"sudo": "while :; do case ${1-} in -u|-g) shift 2;; -*) shift;; *) exec \"$@\";; esac; done\n",
}

func writeStubs(dir string) error {
	for name, script := range stubs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil { //nolint:gosec // they are run
			return err
		}
	}
	return nil
}
