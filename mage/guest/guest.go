// Package guest has the targets that build and show the guests that the tests
// of this repository boot: the small one, and a Debian.
package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"castra.example/castra/castra"
	"castra.example/castra/mage/guest/debian"
	"castra.example/castra/mage/setup"
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

// Debian makes a Debian with real cloud-init, systemd and OpenSSH from packages.
// It takes a Debian on amd64, two minutes, 1.5 GB of room while it builds, and
// root or user namespaces (uidmap) with fakeroot. It installs what is missing.
func Debian(ctx context.Context) error {
	began := time.Now()
	if err := setup.Ensure(ctx, os.Stderr, append(setup.Debian(), setup.QEMU...)...); err != nil {
		return err
	}
	home, err := debian.Home()
	if err != nil {
		return err
	}
	g, err := debian.Ensure(ctx, home, os.Stderr)
	if err != nil {
		return err
	}
	m, err := debian.ReadManifest(g.Manifest)
	if err != nil {
		return err
	}
	fmt.Printf("%s (%s)\n", g.Disk, time.Since(began).Round(10*time.Millisecond))
	fmt.Printf("%.1f MB, %d packages, cloud-init %s, built in %.0f s\n", float64(m.Bytes)/1e6, len(m.Packages), m.Packages["cloud-init"], m.Seconds)
	return nil
}

func ensure(ctx context.Context) (string, error) {
	return castra.EnsureImage(ctx, castra.Options{Home: os.Getenv("CASTRA_HOME")}, "small", nil)
}
