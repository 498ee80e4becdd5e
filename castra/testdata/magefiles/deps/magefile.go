//go:build mage

// A project whose targets depend on VMs.
package main

import (
	"context"
	"fmt"

	"github.com/magefile/mage/mg"

	"castra.example/castra/castra"
)

var Default = Integration

// Integration needs all VMs.
func Integration(ctx context.Context) {
	mg.CtxDeps(ctx, castra.Up)
	mg.CtxDeps(ctx, castra.Up)
	fmt.Println("integration ran")
}

// Web needs the web server alone.
func Web(ctx context.Context) {
	mg.CtxDeps(ctx, castra.Running("web"), castra.Running("web"))
	fmt.Println("web ran")
}

// Stop ends them.
func Stop(ctx context.Context) { mg.SerialCtxDeps(ctx, castra.Down) }
