//go:build unix && !linux

package qemutest

import (
	"errors"
	"os"
)

func openPty() (master, slave *os.File, err error) { return nil, nil, errors.ErrUnsupported }
