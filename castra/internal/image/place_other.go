//go:build !linux

package image

import (
	"errors"
	"os"
)

// reflink is not known here.
func reflink(_, _ *os.File) error { return errors.ErrUnsupported }
