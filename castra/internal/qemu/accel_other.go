//go:build !darwin

package qemu

import "errors"

func probeHVF() error { return errors.New("hvf is macOS's") }
