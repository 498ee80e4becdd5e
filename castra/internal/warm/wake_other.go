//go:build !amd64 && !arm64

package warm

import (
	"errors"
	"runtime"
)

func machineCode() ([]byte, error) {
	return nil, errors.New("there is no waking program for " + runtime.GOARCH)
}
