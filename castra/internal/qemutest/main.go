package qemutest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Environment of the fakes.
const (
	envQEMU     = "CASTRA_FAKE_QEMU"     // Personality of the fake QEMU
	envImg      = "CASTRA_FAKE_QEMU_IMG" // Personality of the fake qemu-img
	envLifetime = "CASTRA_FAKE_LIFETIME" // a fake QEMU ends after this time, whatever happens
)

const defaultLifetime = 120 * time.Second

// programs are the names under which the test binary becomes a fake.
var programs = []string{"qemu-system-x86_64", "qemu-system-aarch64", "qemu-img"}

// strangerName is under what name the test binary becomes a Stranger.
const strangerName = "castra-stranger"

// Main is the whole of a TestMain: it runs the tests, or, under one of the
// names that Install gives the test binary, the fake of that name.
func Main(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); {
	case name == "qemu-img":
		leave(runImg(os.Args[1:]))
	case strings.HasPrefix(name, "qemu-system-"):
		leave(runQEMU(os.Args[1:]))
	case name == strangerName:
		leave(runStranger())
	}
	os.Exit(m.Run())
}

// leave ends a fake. With the race detector, os.Exit would take a second.
func leave(code int) { syscall.Exit(code) }

// complain prints the way QEMU's programs do and returns their status.
func complain(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, filepath.Base(os.Args[0])+": "+format+"\n", args...)
	return 1
}
