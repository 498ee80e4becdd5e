//go:build mage

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/magefile/mage/mg"
	"github.com/magefile/mage/sh"

	"castra.example/castra/castra"
	"castra.example/castra/mage/demo"
	"castra.example/castra/mage/rehome"
	"castra.example/castra/mage/setup"
	"castra.example/castra/mage/soak"
	"castra.example/castra/mage/vuln"

	//mage:import
	_ "castra.example/castra/castra"
	//mage:import bench
	_ "castra.example/castra/mage/bench"
	//mage:import guest
	"castra.example/castra/mage/guest"
)

// linter is run as a program of its own: in go.mod its hundreds of modules
// would become those of every project that imports castra.
const linter = "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0"

// Demo boots two VMs, bootstraps them and fetches their page.
// It installs QEMU where it is missing and builds the small guest on first
// use. The VMs stay up: demoDown ends them.
func Demo(ctx context.Context) error {
	if err := setup.Ensure(ctx, os.Stderr, setup.QEMU...); err != nil {
		return err
	}
	os.Setenv("CASTRA_CONFIG", demo.Config)
	mg.CtxDeps(ctx, castra.Up)
	p, err := castra.Open(castra.Options{Config: demo.Config, Home: os.Getenv("CASTRA_HOME")})
	if err != nil {
		return err
	}
	if err := demo.Show(ctx, p); err != nil {
		return err
	}
	if err := castra.Status(ctx, nil, nil, nil); err != nil {
		return err
	}
	fmt.Println()
	if err := castra.Ports(ctx, nil, nil, nil, nil); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "The VMs stay up. End them with: go run ./mage demoDown")
	return nil
}

// DemoDown ends the demo's VMs.
func DemoDown(ctx context.Context) error {
	os.Setenv("CASTRA_CONFIG", demo.Config)
	return castra.Down(ctx)
}

// Test sets up what the tests need and runs them all, real QEMU included.
// CASTRA_TEST_REQUIRE_QEMU=1, which it sets, turns skipped guests into failures.
func Test(ctx context.Context) error {
	if err := setup.Ensure(ctx, os.Stderr, slices.Concat(setup.Compiler, setup.QEMU, setup.Machines)...); err != nil {
		return err
	}
	if err := guest.Debian(ctx); err != nil { // before, so that its minutes are in no test's
		return err
	}
	env := map[string]string{"CASTRA_TEST_REQUIRE_QEMU": "1", "CGO_ENABLED": "1"}
	return sh.RunWithV(env, "go", "test", "-race", "-timeout=30m", "./...")
}

// Soak runs the long tests in full, then fuzzes, and prints every bar.
// It takes about an hour. Each fuzz target gets a minute, or -fuzz.
func Soak(ctx context.Context, fuzz *time.Duration) error {
	if err := setup.Ensure(ctx, os.Stderr, slices.Concat(setup.Compiler, setup.QEMU, setup.Machines)...); err != nil {
		return err
	}
	each := time.Minute
	if fuzz != nil {
		each = *fuzz
	}
	return soak.Run(ctx, os.Stdout, each)
}

// Lint runs go vet, golangci-lint and govulncheck.
func Lint(ctx context.Context) error {
	if err := sh.RunV("go", "vet", "./..."); err != nil {
		return err
	}
	if err := sh.RunV("go", "vet", "-tags=mage", "."); err != nil {
		return err
	}
	if err := sh.RunV("go", "run", linter, "run", "./..."); err != nil {
		return err
	}
	return vuln.Check(ctx, os.Stdout)
}

// Rehome gives the module another path, everywhere.
// It rewrites go.mod, sources, template, README and settings:
// go run ./mage rehome example.org/you/castra.
func Rehome(ctx context.Context, path string) error { return rehome.Module(ctx, ".", path) }

// Cover runs the tests that need no guest and prints the coverage.
func Cover(ctx context.Context) error {
	if err := sh.RunV("go", "test", "-short", "-coverprofile=coverage.out", "./castra/..."); err != nil {
		return err
	}
	return sh.RunV("go", "tool", "cover", "-func=coverage.out")
}
