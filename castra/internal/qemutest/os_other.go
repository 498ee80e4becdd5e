//go:build unix && !linux

package qemutest

import (
	"errors"
	"os"
	"syscall"
)

func lockImage(*os.File) error  { return nil }
func shareImage(*os.File) error { return nil }

func commandAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func confine() error { return errors.New("-sandbox support is not enabled in this QEMU binary") }

func memoryFile(string) (*os.File, error) {
	return nil, errors.New("Parameter 'qom-type' does not accept value 'memory-backend-memfd'") //nolint:staticcheck // QEMU's words
}

// runStranger is for Linux alone.
func runStranger() int { return complain("stranger: there is none here") }
