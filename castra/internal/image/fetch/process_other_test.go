//go:build !linux

package fetch

import "os/exec"

func unshare(*exec.Cmd) bool { return false }

func fullDiskChild(string) int { return 2 }
