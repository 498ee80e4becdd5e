//go:build amd64 || arm64

package warm

import (
	"bytes"
	"errors"
	"unsafe"
)

// program is never called here: its instructions are what runs in the guest.
//
//nolint:unused // wake_*.s has it
func program()

func programStart() unsafe.Pointer

// programEnd is an instruction that cannot be run, so the program itself does not hold it.
var programEnd = []byte{0x0f, 0x0b, 0x0f, 0x0b}

const programMax = 1024

// machineCode is the program as the Go assembler put it into this binary.
func machineCode() ([]byte, error) {
	code := unsafe.Slice((*byte)(programStart()), programMax) //nolint:gosec // it is code of this binary, which is longer
	n := bytes.Index(code, programEnd)
	if n < 0 {
		return nil, errors.New("the waking program has no end")
	}
	return bytes.Clone(code[:n]), nil
}
