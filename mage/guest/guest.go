// Package guest has the targets that build and show the small guest, which the
// tests of this repository boot.
package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"castra.example/castra/castra"
)

// Build makes the small guest, unless it is there already.
// It is kept under CASTRA_HOME (default ~/.castra), in guests/.
func Build(ctx context.Context) error {
	began := time.Now()
	disk, err := ensure(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s (%s)\n", filepath.Dir(disk), time.Since(began).Round(10*time.Millisecond))
	return nil
}

// Info shows what the small guest was built from.
// It makes the guest first where it is missing.
func Info(ctx context.Context) error {
	disk, err := ensure(ctx)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(filepath.Dir(disk), "manifest.json"))
	if err != nil {
		return err
	}
	var m struct {
		Recipe   string
		Packages []struct{ Name, Version, SHA256 string }
		Outputs  []struct {
			Name, SHA512 string
			Bytes        int64
		}
		FetchSeconds float64 `json:"fetch_seconds"`
		BuildSeconds float64 `json:"build_seconds"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	fmt.Printf("%s\nrecipe %.12s, fetched in %.1f s, built in %.1f s\n", filepath.Dir(disk), m.Recipe, m.FetchSeconds, m.BuildSeconds)
	for _, out := range m.Outputs {
		fmt.Printf("%-12s %6.1f MB  sha512:%.16s...\n", out.Name, float64(out.Bytes)/1e6, out.SHA512)
	}
	for _, p := range m.Packages {
		fmt.Printf("package      %s %s  sha256:%.16s...\n", p.Name, p.Version, p.SHA256)
	}
	return nil
}

func ensure(ctx context.Context) (string, error) {
	return castra.EnsureImage(ctx, castra.Options{Home: os.Getenv("CASTRA_HOME")}, "small", nil)
}
