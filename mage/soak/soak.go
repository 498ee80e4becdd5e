// Package soak runs the long forms of the tests, and every fuzz target, and
// prints each number that was asked for beside the one reached.
package soak

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// bar is what castra/internal/soak reports: one number asked for, and what was
// reached.
type bar struct {
	ID      string  `json:"id"`
	What    string  `json:"what"`
	Sense   string  `json:"sense"`
	Asked   float64 `json:"asked"`
	Reached float64 `json:"reached"`
	Unit    string  `json:"unit"`
	Met     bool    `json:"met"`
}

// Run runs all tests whose names end in Soak in full, then each fuzz target
// for fuzzTime, and prints a line a bar on out. It fails where a test does, or
// a bar is not reached.
func Run(ctx context.Context, out io.Writer, fuzzTime time.Duration) error {
	dir, err := os.MkdirTemp("", "castra-soak-")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "bars")
	defer func() { _ = errors.Join(os.Remove(file), os.Remove(dir)) }()
	began := time.Now()
	failed := goTest(ctx, os.Stderr, []string{"CASTRA_SOAK=1", "CASTRA_SOAK_REPORT=" + file, "CASTRA_TEST_REQUIRE_QEMU=1"},
		"-count=1", "-timeout=4h", "-run=Soak$", "./castra/...")
	bars, err := read(file)
	if err = errors.Join(failed, err); len(bars) == 0 {
		return errors.Join(err, errors.New("soak: no test told of a number"))
	}
	fuzzed, fuzzErr := fuzz(ctx, fuzzTime)
	bars = append(bars, fuzzed...)
	short := print(out, bars)
	fmt.Fprintf(out, "%d bars in %s, %d not reached\n", len(bars), time.Since(began).Round(time.Second), short)
	if short > 0 {
		err = errors.Join(err, fmt.Errorf("soak: %d of %d bars were not reached", short, len(bars)))
	}
	return errors.Join(err, fuzzErr)
}

// read gives the bars in the order of their IDs.
func read(file string) ([]bar, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var bars []bar
	for line := range bytes.Lines(data) {
		var b bar
		if bad := json.Unmarshal(line, &b); bad != nil {
			return bars, fmt.Errorf("%s: %q: %w", file, line, bad)
		}
		bars = append(bars, b)
	}
	slices.SortStableFunc(bars, func(a, b bar) int { return strings.Compare(order(a.ID), order(b.ID)) })
	return bars, err
}

// order puts A2 before A10.
func order(id string) string {
	letters := strings.TrimRight(id, "0123456789")
	return fmt.Sprintf("%s%9s", letters, id[len(letters):])
}

// print writes the table, and tells how many bars were not reached.
func print(out io.Writer, bars []bar) (short int) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, b := range bars {
		verdict := ""
		if !b.Met {
			verdict, short = "NOT REACHED", short+1
		}
		fmt.Fprintf(table, "%s\t%s\t%s\tasked: %s %s\t%s\n", b.ID, b.What, number(b.Reached, b.Unit), b.Sense, number(b.Asked, b.Unit), verdict)
	}
	_ = table.Flush()
	return short
}

func number(f float64, unit string) string { return strconv.FormatFloat(f, 'f', -1, 64) + unit }

var execs = regexp.MustCompile(`execs: (\d+)`)

// fuzz runs every fuzz target for a while. What one finds is its failure, and
// is left under testdata/fuzz for the next test to try.
func fuzz(ctx context.Context, each time.Duration) ([]bar, error) {
	targets, err := fuzzTargets(ctx)
	if err != nil {
		return nil, err
	}
	var bars []bar
	var faults []error
	for _, t := range targets {
		fmt.Fprintf(os.Stderr, "fuzzing %s.%s for %s\n", t.pkg, t.name, each)
		var printed bytes.Buffer
		began := time.Now()
		if err := goTest(ctx, io.MultiWriter(&printed, os.Stderr), nil, "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+each.String(), "./"+t.pkg); err != nil {
			faults = append(faults, err)
		}
		tried := 0
		if all := execs.FindAllStringSubmatch(printed.String(), -1); len(all) > 0 {
			tried, _ = strconv.Atoi(all[len(all)-1][1])
		}
		took := time.Since(began).Truncate(time.Second)
		bars = append(bars, bar{ID: "fuzz", What: fmt.Sprintf("%s.%s, %d inputs", filepath.Base(t.pkg), t.name, tried), Sense: "at least",
			Asked: each.Seconds(), Reached: took.Seconds(), Unit: " s", Met: took >= each})
	}
	return bars, errors.Join(faults...)
}

type target struct{ pkg, name string }

// fuzzTargets finds them in the sources: asking `go test -list` would compile
// every package's tests.
func fuzzTargets(ctx context.Context) ([]target, error) {
	files, err := exec.CommandContext(ctx, "git", "ls-files", "castra/*_test.go").Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	var all []target
	for lines := bufio.NewScanner(bytes.NewReader(files)); lines.Scan(); {
		data, err := os.ReadFile(lines.Text())
		if err != nil {
			return nil, err
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`).FindAllSubmatch(data, -1) {
			all = append(all, target{filepath.Dir(lines.Text()), string(m[1])})
		}
	}
	return all, nil
}

func goTest(ctx context.Context, out io.Writer, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go test %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
