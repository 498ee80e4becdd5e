// Command smallguest builds the small guest (build) or says what it was built from (info). The mage targets of mage/guest run
// it, because they lie outside the tree that may import internal packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"castra.example/castra/castra/internal/image/small"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		var hinter interface{ Hint() string }
		if errors.As(err, &hinter) && hinter.Hint() != "" {
			fmt.Fprintln(os.Stderr, "hint:", hinter.Hint())
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	home, err := home()
	if err != nil {
		return err
	}
	switch strings.Join(args, " ") {
	case "build":
		return build(ctx, home)
	case "info":
		return info(home)
	}
	return errors.New("usage: smallguest build|info")
}

func build(ctx context.Context, home string) error {
	start := time.Now()
	g, err := small.Build(ctx, home, func(step string) { fmt.Fprintln(os.Stderr, step) })
	if err != nil {
		return err
	}
	fmt.Printf("%s (%s)\n", g.Dir, time.Since(start).Round(10*time.Millisecond))
	return nil
}

func info(home string) error {
	g, ok := small.Lookup(home)
	if !ok {
		return fmt.Errorf("no small guest of this recipe under %s: build it with guest:build", home)
	}
	m, err := small.ReadManifest(g.Manifest)
	if err != nil {
		return err
	}
	fmt.Printf("%s\nrecipe %s\nfetched in %.1f s, built in %.1f s\n", g.Dir, m.Recipe[:12], m.FetchSeconds, m.BuildSeconds)
	for _, out := range m.Outputs {
		fmt.Printf("%-12s %6.1f MB  sha512:%s...\n", out.Name, float64(out.Bytes)/1e6, out.SHA512[:16])
	}
	for _, p := range m.Packages {
		fmt.Printf("package      %s %s\n", p.Name, p.Version)
	}
	fmt.Printf("append       %s\n", g.Append)
	return nil
}

func home() (string, error) {
	if home := os.Getenv("CASTRA_HOME"); home != "" {
		return home, nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("where to keep the guest: %w (set CASTRA_HOME)", err)
	}
	return filepath.Join(user, ".castra"), nil
}
