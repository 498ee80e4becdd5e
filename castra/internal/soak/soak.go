// Package soak lets a test try a share of its cases in an ordinary run, and
// all of them in `go run ./mage soak`, and holds what it reached against what
// it was to reach. Tests that use it have Soak at the end of their names.
package soak

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// What `mage soak` sets.
const (
	// FullEnv is 1 where all cases are to be tried.
	FullEnv = "CASTRA_SOAK"
	// ReportEnv is the file that bars are appended to, a JSON object a line.
	ReportEnv = "CASTRA_SOAK_REPORT"
)

// Bar is one number that was asked for, and what was reached.
type Bar struct {
	ID      string  `json:"id"` // of the fault, as B4
	What    string  `json:"what"`
	Sense   string  `json:"sense"` // "at least" or "at most"
	Asked   float64 `json:"asked"`
	Reached float64 `json:"reached"`
	Unit    string  `json:"unit,omitempty"`
	Met     bool    `json:"met"`
}

func (b Bar) String() string {
	number := func(f float64) string { return strconv.FormatFloat(f, 'g', 6, 64) + b.Unit }
	return fmt.Sprintf("%s %s: %s (asked: %s %s)", b.ID, b.What, number(b.Reached), b.Sense, number(b.Asked))
}

// Full tells that all cases are to be tried.
func Full() bool { return os.Getenv(FullEnv) == "1" }

// N is how many cases to try: share, or all of them.
func N(share, all int) int {
	if Full() {
		return all
	}
	return share
}

// AtLeast reports how much was tried. In a full run the test fails where that
// is less than was asked for.
func AtLeast(t testing.TB, id, what string, asked, reached float64) {
	t.Helper()
	b := report(t, Bar{ID: id, What: what, Sense: "at least", Asked: asked, Reached: reached})
	if Full() && !b.Met {
		t.Errorf("%v", b)
	}
}

// AtMost reports a count that has a limit; beyond it the test fails, however
// many cases were tried.
func AtMost(t testing.TB, id, what string, asked, reached float64) {
	t.Helper()
	if b := report(t, Bar{ID: id, What: what, Sense: "at most", Asked: asked, Reached: reached}); !b.Met {
		t.Errorf("%v", b)
	}
}

// Figure reports a figure that depends on the machine, as a time does: it is
// printed beside its limit, and no test fails by it.
func Figure(t testing.TB, id, what string, asked, reached float64, unit string) {
	t.Helper()
	report(t, Bar{ID: id, What: what, Sense: "at most", Asked: asked, Reached: reached, Unit: unit})
}

func report(t testing.TB, b Bar) Bar {
	t.Helper()
	b.Met = b.Reached <= b.Asked
	if b.Sense == "at least" {
		b.Met = b.Reached >= b.Asked
	}
	t.Log(b)
	path := os.Getenv(ReportEnv)
	if path == "" {
		return b
	}
	line, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	return b
}
