package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// imageRoom holds the benchmarks that Images runs.
const imageRoom = "./castra/internal/image/"

// Images measures hashing, fetching and unpacking of images.
// It prints digests beside sha512sum and sha256sum, a download over loopback TLS beside curl, what a cached image costs, and the memory that
// unpacking takes. It takes two minutes, and 1 GB in the directory for temporary files.
func Images(ctx context.Context) error {
	fmt.Fprintln(os.Stdout, machine(ctx))
	results, err := benchmarks(ctx, "digest", "fetch", "unpack", ".")
	if err != nil {
		return err
	}
	for _, r := range results {
		fmt.Fprintf(os.Stdout, "%-28s %s\n", r.name, r.text)
	}
	fmt.Fprintln(os.Stdout)
	for _, b := range []struct{ name, benchmark, tool string }{
		{"SHA-512 of a file", "digest File/sha512", "sha512sum"},
		{"download with its digest", "fetch Get/sha512", "curl"},
	} {
		ratioBar(os.Stdout, b.name, results.metric(b.benchmark, "ratio"), b.tool)
	}
	return run(ctx, os.Stdout, "go", "test", "-count=1", "-run", "^TestMemory$", "-v", imageRoom+"unpack")
}

// ratioBar prints a figure that must be 0.8 at least. One that is not there is missed.
func ratioBar(w io.Writer, name string, reached float64, tool string) {
	verdict := "reached"
	if reached < 0.8 {
		verdict = "MISSED"
	}
	fmt.Fprintf(w, "%s: %.2f times as fast as %s, 0.80 at least: %s\n", name, reached, tool, verdict)
}

// benchmark is one line of a Go benchmark.
type benchmark struct {
	name    string // with the directory: fetch Get/sha512
	text    string
	metrics map[string]float64
}

type benchmarkList []benchmark

func (l benchmarkList) metric(name, unit string) float64 {
	for _, b := range l {
		if b.name == name {
			return b.metrics[unit]
		}
	}
	return 0
}

// benchmarks runs those of directories of the image room, one after another.
func benchmarks(ctx context.Context, dirs ...string) (benchmarkList, error) {
	var all benchmarkList
	for _, dir := range dirs {
		var out bytes.Buffer
		if err := run(ctx, &out, "go", "test", "-run", "^$", "-bench", ".", "-benchtime", "5x", imageRoom+dir); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, out.String())
		}
		for line := range strings.Lines(out.String()) {
			if b, ok := parseBenchmark(dir, line); ok {
				all = append(all, b)
			}
		}
	}
	return all, nil
}

// parseBenchmark reads "BenchmarkGet/sha512-2  4  123 ns/op  400 MB/s".
func parseBenchmark(dir, line string) (benchmark, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return benchmark{}, false
	}
	name := strings.TrimPrefix(fields[0], "Benchmark")
	if at := strings.LastIndexByte(name, '-'); at > 0 {
		name = name[:at]
	}
	b := benchmark{name: dir + " " + name, metrics: map[string]float64{}}
	var told []string
	for i := 2; i+1 < len(fields); i += 2 {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return benchmark{}, false
		}
		b.metrics[fields[i+1]] = value
		told = append(told, fields[i]+" "+fields[i+1])
	}
	b.text = strings.Join(told, ", ")
	return b, true
}

// run runs a program with its output on w, within the time of one round.
func run(ctx context.Context, w io.Writer, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
