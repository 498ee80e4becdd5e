// Package vuln looks for known vulnerabilities in what the product calls.
package vuln

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	scanner = "golang.org/x/vuln/cmd/govulncheck@v1.9.0"
	// database is the newest state of the Go vulnerability database, taken as a
	// module: so the check needs the module proxy alone.
	database = "golang.org/x/vulndb@latest"
	// standard is the module that the scanner calls the standard library.
	standard = "stdlib"
)

// finding is what govulncheck -format json tells of one way into a vulnerable
// symbol; of an import that is not called, the first frame has no function.
type finding struct {
	OSV   string `json:"osv"`
	Fixed string `json:"fixed_version"`
	Trace []struct {
		Module   string `json:"module"`
		Version  string `json:"version"`
		Package  string `json:"package"`
		Function string `json:"function"`
		Receiver string `json:"receiver"`
	} `json:"trace"`
}

// Check fails where the product calls what is vulnerable in a module that
// go.mod chooses. What is vulnerable in the Go it is built with is printed
// alone: a newer Go mends it, and no change here.
func Check(ctx context.Context, out io.Writer) error {
	dir, err := advisories(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "run", scanner, "-format", "json", "-db", "file://"+filepath.ToSlash(dir), "./castra/...")
	cmd.Stderr = os.Stderr
	printed, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("govulncheck: %w", err)
	}
	lines, err := called(bytes.NewReader(printed))
	if err != nil {
		return fmt.Errorf("govulncheck: %w", err)
	}
	bad := 0
	for _, line := range lines {
		fmt.Fprintln(out, line.text)
		if !line.standard {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("vulnerabilities in modules: %d; raise their versions in go.mod", bad)
	}
	fmt.Fprintf(out, "no known vulnerability is called in any module; %d in the Go that builds it\n", len(lines))
	return nil
}

// advisories gives the directory with a file for each advisory.
func advisories(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", database)
	cmd.Stderr = os.Stderr
	printed, err := cmd.Output()
	var module struct{ Dir, Error string }
	if bad := json.Unmarshal(printed, &module); bad != nil {
		return "", errors.Join(fmt.Errorf("download %s: %w", database, err), bad)
	}
	if module.Error != "" {
		return "", fmt.Errorf("download %s: %s", database, module.Error)
	}
	dir := filepath.Join(module.Dir, "data", "osv")
	if files, err := filepath.Glob(filepath.Join(dir, "GO-*.json")); err != nil || len(files) < 1000 {
		return "", errors.Join(fmt.Errorf("%s: %d advisories, which is not the database", dir, len(files)), err)
	}
	return dir, nil
}

type result struct {
	text     string
	standard bool
}

// called reads the scanner's messages, and gives each vulnerability that is
// called, once.
func called(r io.Reader) ([]result, error) {
	found := map[string]result{}
	scanned := false
	for dec := json.NewDecoder(r); ; {
		var message struct {
			Config  *struct{} `json:"config"`
			Finding *finding  `json:"finding"`
		}
		err := dec.Decode(&message)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		scanned = scanned || message.Config != nil
		f := message.Finding
		if f == nil || len(f.Trace) == 0 || f.Trace[0].Function == "" {
			continue
		}
		symbol := f.Trace[0]
		found[f.OSV] = result{
			text: fmt.Sprintf("%s: %s.%s of %s %s, mended in %s", f.OSV, symbol.Package,
				strings.TrimPrefix(strings.TrimPrefix(symbol.Receiver, "*")+"."+symbol.Function, "."), symbol.Module, symbol.Version, orNone(f.Fixed)),
			standard: symbol.Module == standard,
		}
	}
	if !scanned {
		return nil, errors.New("it printed nothing")
	}
	var results []result
	for _, id := range slices.Sorted(maps.Keys(found)) {
		results = append(results, found[id])
	}
	return results, nil
}

func orNone(version string) string {
	if version == "" {
		return "no version yet"
	}
	return version
}
