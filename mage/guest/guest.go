// Package guest has the mage targets that build and show the small guest, which the tests of this repository boot.
package guest

import (
	"context"
	"os"
	"os/exec"
)

// smallguest may import what the mage targets, outside of castra/, may not.
const smallguest = "castra.example/castra/castra/internal/image/small/smallguest"

// Build makes the small guest, unless it is there already.
//
// It is kept under CASTRA_HOME (default ~/.castra), in guests/.
func Build(ctx context.Context) error { return run(ctx, "build") }

// Info prints what the small guest was built from.
func Info(ctx context.Context) error { return run(ctx, "info") }

func run(ctx context.Context, verb string) error {
	cmd := exec.CommandContext(ctx, "go", "run", smallguest, verb)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
