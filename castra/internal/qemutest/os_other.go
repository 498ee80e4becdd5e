//go:build unix && !linux

package qemutest

import (
	"os"
	"syscall"
)

func lockImage(*os.File) error { return nil }

func commandAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
