package bench

import (
	"fmt"
	"io"
	"time"
)

func (f *warmFigures) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-50s %10s %10s %10s\n", "medians of 5 (min, max), the whole process", "median", "min", "max")
	for _, row := range []struct {
		name string
		took []time.Duration
	}{
		{"raw QEMU by hand to an SSH command", f.rawUp},
		{"cold up (CASTRA_WARM=0)", f.coldUp},
		{"first up, which makes a template", f.firstUp},
		{"warm up from RAM, 512 MiB", f.ramUp},
		{"warm up from RAM, 4 GiB", f.largeUp},
		{"warm up from RAM, bootstrap of 60 s done", f.bootedUp},
		{"warm up from disk, bootstrap of 1 s done", f.diskUp},
		{"up with nothing to do", f.noop},
		{"down of a restored VM", f.ramDown},
		{"cold up of 4 VMs", f.cold4},
		{"warm up of 4 VMs from RAM", f.ram4},
		{"cold up of 8 VMs", f.cold8},
		{"warm up of 8 VMs from RAM, all answering", f.ram8},
	} {
		fmt.Fprintf(w, "%-50s %10s %10s %10s\n", row.name+ofRounds(len(row.took)), seconds(median(row.took)), seconds(least(row.took)), seconds(most(row.took)))
	}
	for _, row := range []struct {
		name string
		pss  []int64
	}{{"memory (PSS) of 8 cold VMs", f.coldPSS}, {"memory (PSS) of 8 restored VMs", f.ramPSS}} {
		fmt.Fprintf(w, "%-50s %10s %10s %10s\n", row.name+ofRounds(len(row.pss)), mebibytes(median(row.pss)), mebibytes(least(row.pss)), mebibytes(most(row.pss)))
	}
	fmt.Fprintln(w)
	f.bars(w)
	f.printProfile(w)
}

// ofRounds says of how many rounds a row's median is, where it is not of all.
func ofRounds(n int) string {
	switch n {
	case rounds:
		return ""
	case 1:
		return " (1 round)"
	}
	return fmt.Sprintf(" (%d rounds)", n)
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func (f *warmFigures) bars(w io.Writer) {
	boot, one := median(f.coldUp), median(f.ramUp)
	ratio := func(took, other []time.Duration) string {
		return fmt.Sprintf("%.2f x", median(took).Seconds()/median(other).Seconds())
	}
	bar(w, "warm up from RAM", one, boot*15/100, "0.15 x cold up; it is "+ratio(f.ramUp, f.coldUp))
	bar(w, "warm up from RAM", one, time.Second, "1 s")
	bar(w, "warm up with 4 GiB", median(f.largeUp), one*120/100, "1.2 x that with 512 MiB; it is "+ratio(f.largeUp, f.ramUp))
	bar(w, "warm up after a bootstrap of 60 s", median(f.bootedUp), one*110/100, "that without bootstrap, and 10 % for noise; it is "+ratio(f.bootedUp, f.ramUp))
	bar(w, "8 replicas from RAM", median(f.ram8), one*4, "4 x one; it is "+ratio(f.ram8, f.ramUp))
	verdict := "reached"
	restored, booted := median(f.ramPSS), median(f.coldPSS)
	if restored > booted/2 {
		verdict = "MISSED"
	}
	fmt.Fprintf(w, "memory of 8 restored VMs: %s of at most %s (0.5 x 8 cold ones; it is %.2f x): %s\n",
		mebibytes(restored), mebibytes(booted/2), float64(restored)/float64(booted), verdict)
	bar(w, "warm up from disk", median(f.diskUp), boot*105/100, "1.05 x cold up without bootstrap; it is "+ratio(f.diskUp, f.coldUp))
	var extra []time.Duration
	for i, first := range f.firstUp {
		extra = append(extra, first-f.coldUp[i])
	}
	bar(w, "making a template", median(extra), time.Second, fmt.Sprintf("1 s; first up less cold up of the same round, %s to %s; %s by its event",
		seconds(least(extra)), seconds(most(extra)), seconds(median(f.saved))))
}

// printProfile tells where the time of a restore goes. What is on one line cannot be told apart by events.
func (f *warmFigures) printProfile(w io.Writer) {
	fmt.Fprintf(w, "\n%-50s %10s %10s %10s\n", "one warm up from RAM, 512 MiB", "median", "min", "max")
	for i, part := range parts {
		var took []time.Duration
		for _, spans := range f.profile {
			took = append(took, spans[i])
		}
		fmt.Fprintf(w, "%-50s %10s %10s %10s\n", part.name, seconds(median(took)), seconds(least(took)), seconds(most(took)))
	}
}
