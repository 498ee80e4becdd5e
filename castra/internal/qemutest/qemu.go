package qemutest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	bootDelay     = 50 * time.Millisecond
	shutdownDelay = 30 * time.Millisecond
)

// machine is one run of the fake QEMU.
type machine struct {
	options
	personality Personality
	dir         string // made by Install
	status      *runState
	monitor     *monitor
	network     *network
	guest       *guest
	guestSeed   seedData
	restored    *savedState // that the machine goes on from; nil: none
	migration   migration
	variables   *os.File // of UEFI firmware; nil: none that it could write
	booted      chan struct{}
	exit        chan int // status to end with
}

func runQEMU(args []string) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-version") {
		fmt.Println("QEMU emulator version 7.2.22 (fake)")
		return 0
	}
	if slices.Equal(args, []string{"-L", "help"}) {
		dir, err := home()
		if err != nil {
			return complain("fake: %v", err)
		}
		fmt.Println(dir)
		return 0
	}
	signal.Ignore(syscall.SIGPIPE) // as QEMU does
	o, err := parseOptions(args)
	if err != nil {
		return complain("%v", err)
	}
	dir, err := home()
	if err == nil {
		err = record(dir)
	}
	if err != nil {
		return complain("fake: %v", err)
	}
	time.AfterFunc(lifetime(), func() { leave(complain("fake: lifetime is over")) })
	m := &machine{
		options: o, dir: dir,
		personality: Personality(os.Getenv(envQEMU)).For(o.name),
		booted:      make(chan struct{}),
		exit:        make(chan int, 8),
		migration:   migration{capabilities: map[string]bool{}},
	}
	m.guest = newGuest(o.name, m.guestPath()+".json")
	m.guest.is.Boot = started(dir)
	if code, ended := m.misstart(); ended {
		return code
	}
	if m.sandbox && !m.personality.Has("no-sandbox") {
		if err := confine(); err != nil {
			return complain("failed to install seccomp syscall filter: %v", err)
		}
	}
	if err := m.start(); err != nil {
		m.removePidfile()
		return complain("%v", err)
	}
	code := <-m.exit
	m.cleanup()
	return code
}

func lifetime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(envLifetime)); err == nil {
		return d
	}
	return defaultLifetime
}

// misstart acts the personalities that never come up.
func (m *machine) misstart() (code int, ended bool) {
	switch {
	case m.personality.Has("exit-1"):
		return complain("fake: could not start, as told"), true
	case m.personality.Has("no-pidfile"):
		return 0, true
	}
	return 0, false
}

// start does what QEMU does, in its order.
func (m *machine) start() error {
	<-time.After(m.personality.Duration("slow-start", 0))
	if err := m.takePidfile(); err != nil {
		return err
	}
	if err := m.watchTwins(); err != nil {
		return err
	}
	if err := m.openFlash(); err != nil {
		return err
	}
	if err := m.powerOn(); err != nil {
		return err
	}
	m.status = newRunState(m.initialStatus(), m.guest.run, m.boot)
	var err error
	if m.monitor, err = listenMonitor(m); err != nil {
		return err
	}
	if m.network, err = listenNetwork(m); err != nil {
		return err
	}
	for _, n := range m.overlays {
		if err := openOverlay(n); err != nil {
			return err
		}
	}
	if err := m.serveGuest(); err != nil {
		return err
	}
	m.handleSignals()
	m.scheduleEnd()
	go m.monitor.serve()
	m.status.start()
	return nil
}

// powerOn makes the memory and lets the firmware speak. The firmware of a
// machine that goes on from a saved state has spoken before.
func (m *machine) powerOn() error {
	if ram := m.memory(); ram != nil {
		if err := ram.open(); err != nil {
			return err
		}
	}
	if m.incoming {
		return m.writeSerial("")
	}
	firmware := ""
	switch {
	case m.flash[0] != nil:
		firmware = "UEFI firmware (fake)\r\n"
	case this().goarch == "amd64":
		firmware = "SeaBIOS (fake)\r\n"
	}
	if err := errors.Join(m.bootByFirmware(), m.writeSerial(firmware+"Linux version 6.1.0 (fake)\r\n")); err != nil {
		return err
	}
	m.flood()
	return nil
}

// flood acts the personalities that print without end, in numbered lines of 16 bytes.
func (m *machine) flood() {
	for word, write := range map[string]func(string) error{
		"flood-serial": m.writeSerial,
		"flood-output": func(text string) error { _, err := os.Stderr.WriteString(text); return err },
	} {
		if !m.personality.Has(word) {
			continue
		}
		go func() {
			for line := 0; ; {
				var b strings.Builder
				for range 2048 {
					fmt.Fprintf(&b, "%015d\n", line)
					line++
				}
				_ = write(b.String()) // who reads it is of no concern to a guest
			}
		}()
	}
}

// serveGuest starts the guest's servers, unless they come with a saved state.
func (m *machine) serveGuest() (err error) {
	if m.incoming {
		return nil
	}
	if m.guestSeed, err = readSeed(m.seed); err != nil {
		return fmt.Errorf("fake: seed %s: %w", m.seed, err)
	}
	if err := m.network.serve(m.guestSeed); err != nil {
		return fmt.Errorf("fake: %w", err)
	}
	return nil
}

func (m *machine) initialStatus() string {
	if m.incoming {
		return "inmigrate"
	}
	for _, status := range []string{"paused", "io-error", "shutdown"} {
		if m.personality.Has(status) {
			return status
		}
	}
	if m.stopped {
		return "prelaunch"
	}
	return "running"
}

// boot is called once, when the guest first runs here.
func (m *machine) boot() {
	if m.personality.Has("hang") {
		return
	}
	if m.restored != nil && m.restored.Memory != "" {
		m.resume()
		return
	}
	if err := m.memory().mark(m.guest.firstRun()); err != nil {
		complain("fake: guest memory: %v", err)
		return
	}
	time.AfterFunc(m.personality.Duration("slow-boot", bootDelay), func() {
		_ = m.writeSerial("\r\n" + m.name + " login: ")
		close(m.booted)
	})
}

// resume lets a restored guest run. One whose memory is not its own crashes.
func (m *machine) resume() {
	ram := m.memory()
	lost := m.restored.Elsewhere && (ram == nil || !ram.holds(m.restored.Memory))
	if lost || m.personality.Has("restore-silent") {
		return
	}
	if m.restored.Booted {
		close(m.booted)
		return
	}
	time.AfterFunc(m.personality.Duration("slow-boot", bootDelay), func() { close(m.booted) })
}

// powerdown is the guest's answer to its power button.
func (m *machine) powerdown() {
	select {
	case <-m.booted:
	default:
		return
	}
	if m.status.get() != "running" || m.personality.Has("ignore-powerdown") || m.personality.Has("hang") {
		return
	}
	time.AfterFunc(shutdownDelay, func() {
		m.monitor.event("SHUTDOWN", map[string]any{"guest": true, "reason": "guest-shutdown"})
		m.end()
	})
}

// end lets the process exit with status 0 soon.
func (m *machine) end() {
	time.AfterFunc(m.personality.Duration("slow-exit", 0), func() { m.exit <- 0 })
}

func (m *machine) handleSignals() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		for s := range signals {
			if m.personality.Has("hang") || m.personality.Has("ignore-term") {
				continue
			}
			complain("terminating on signal %d", s)
			m.monitor.event("SHUTDOWN", map[string]any{"guest": false, "reason": "host-signal"})
			m.end()
		}
	}()
}

// scheduleEnd acts the personalities that come up and then fall.
func (m *machine) scheduleEnd() {
	if m.personality.Has("exit-late") {
		time.AfterFunc(300*time.Millisecond, func() { m.exit <- complain("fake: ending late, as told") })
	}
	if m.personality.Has("crash") {
		time.AfterFunc(100*time.Millisecond, func() { dieBy("SEGV") })
	}
}

// dieBy ends this process by a signal. Go would catch most of them; a shell
// in its place does not.
func dieBy(name string) {
	_ = syscall.Exec("/bin/sh", []string{"sh", "-c", "ulimit -c 0; kill -" + name + " $$"}, os.Environ())
}
