//go:build mage

// A project as CI runs it: one target, VMs up, tests, VMs down, whatever
// happens.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/magefile/mage/mg"

	"castra.example/castra/castra"
)

// CI tests against fresh VMs.
func CI(ctx context.Context) error {
	return castra.With(ctx, castra.Environment(), func(ctx context.Context, s *castra.Session) error {
		addr, err := s.Address("web", 80)
		if err != nil {
			return err
		}
		fmt.Println("tests run against", addr != "", s.VMs())
		if os.Getenv("FAIL") != "" {
			return errors.New("a test failed")
		}
		return nil
	})
}

// Web needs the web server.
func Web(ctx context.Context) {
	mg.CtxDeps(ctx, castra.Running("web"))
	fmt.Println("web ran")
}

// API needs it too.
func API(ctx context.Context) {
	mg.CtxDeps(ctx, castra.Running("web"))
	fmt.Println("api ran")
}

// All runs both at once.
func All(ctx context.Context) { mg.CtxDeps(ctx, Web, API) }
