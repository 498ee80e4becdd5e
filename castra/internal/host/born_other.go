//go:build !linux

package host

import "os"

// Born is not known here.
func Born(*os.File) int64 { return 0 }
