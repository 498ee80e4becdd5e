//go:build !linux || !amd64

package sweep

import "errors"

const supported = false

// Run needs ptrace as Linux has it, and the registers of amd64.
func Run(Command, Plan) (Result, error) { return Result{}, errors.ErrUnsupported }
