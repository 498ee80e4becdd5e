package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	workspaces = 100
	runningVMs = 10
	looks      = 10 // at the registry, and at the plan
	logLines   = 50

	statusBar = 150 * time.Millisecond
	memoryBar = 60 // MB
	planBar   = 100 * time.Millisecond
	lineBar   = 100 * time.Millisecond
)

// Registry measures status of 100 workspaces, a large plan, logs.
// Ten of the workspaces run a VM, the plan has 64 VMs, and a line of a log is
// followed until it is shown. QEMU is the fake of the tests: what is measured
// is Castra alone. It fails where a bar is missed.
func Registry(ctx context.Context) (err error) {
	p, err := newProject(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	p.home = filepath.Join(p.tmp, "home")
	defer func() { // from where no castra.toml is in reach: all that run
		_, _, downErr := p.mageIn(context.WithoutCancel(ctx), p.tmp, "down")
		err = errors.Join(err, downErr)
	}()
	if err := p.fake(ctx); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, machine(ctx))
	if err := p.populate(ctx); err != nil {
		return err
	}
	status, kib, err := p.repeat(ctx, p.tmp, "status")
	if err != nil {
		return err
	}
	if err := p.largeProject("plan", 64); err != nil {
		return err
	}
	plan, _, err := p.repeat(ctx, filepath.Join(p.tmp, "plan"), "plan")
	if err != nil {
		return err
	}
	shown, err := p.followLines(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		reached(fmt.Sprintf("status of %d workspaces, %d running", workspaces, runningVMs), status, median(status), statusBar),
		reachedMemory(median(kib)),
		reached("plan of 64 VMs", plan, median(plan), planBar),
		reached("a line of a followed log", shown, most(shown), lineBar),
	)
}

// reached prints a figure and its bar; that it was missed is an error.
func reached(name string, took []time.Duration, figure, asked time.Duration) error {
	fmt.Fprintf(os.Stdout, "%s: median %s, min %s, max %s\n", name, seconds(median(took)), seconds(least(took)), seconds(most(took)))
	bar(os.Stdout, name, figure, asked, asked.String())
	if figure > asked {
		return fmt.Errorf("%s: %s, and %s is the bar", name, seconds(figure), asked)
	}
	return nil
}

func reachedMemory(kib int64) error {
	mb := kib * 1024 / 1e6
	fmt.Fprintf(os.Stdout, "memory of status: %d MB of at most %d MB\n", mb, memoryBar)
	if mb > memoryBar {
		return fmt.Errorf("memory of status: %d MB, and %d MB is the bar", mb, memoryBar)
	}
	return nil
}

// fake puts the fake QEMU of the tests first in PATH. It is the test binary of
// its package, which acts by the name that it is called by.
func (p *project) fake(ctx context.Context) error {
	dir := filepath.Join(p.tmp, "fakes")
	if err := os.MkdirAll(filepath.Join(dir, "fakes"), 0o700); err != nil {
		return err
	}
	binary := filepath.Join(dir, "fake")
	if _, err := output(ctx, p.repo, nil, "go", "test", "-c", "-o", binary, "./castra/internal/qemutest"); err != nil {
		return err
	}
	for _, name := range []string{"qemu-system-x86_64", "qemu-system-aarch64", "qemu-img"} {
		if err := os.Symlink(binary, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return errors.Join(os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH")), os.Setenv("CASTRA_ACCEL", "tcg"),
		os.Setenv("CASTRA_FAKE_QEMU", ""), os.Setenv("CASTRA_FAKE_QEMU_IMG", ""))
}

// populate makes the workspaces: all have been up, and some still are.
func (p *project) populate(ctx context.Context) error {
	for i := range workspaces {
		name := fmt.Sprintf("shop-%03d", i)
		if err := p.largeProject(name, 1); err != nil {
			return err
		}
		verbs := []string{"up", "down"}
		if i < runningVMs {
			verbs = verbs[:1]
		}
		for _, verb := range verbs {
			if _, _, err := p.mageIn(ctx, filepath.Join(p.tmp, name), verb); err != nil {
				return err
			}
		}
		if i%10 == 9 {
			fmt.Fprintf(os.Stderr, "%d of %d workspaces made\n", i+1, workspaces)
		}
	}
	return nil
}

// largeProject writes a project of so many VMs, with a disk of its own.
func (p *project) largeProject(name string, vms int) error {
	dir := filepath.Join(p.tmp, name)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	text := fmt.Sprintf("version = \"0.2\"\n\n[project]\nname = %q\n\n[[vms]]\nname = \"vm\"\ncount = %d\nbase_image = \"disk.qcow2\"\nmemory = \"64 MiB\"\n", name, vms)
	disk := filepath.Join(dir, "disk.qcow2")
	if _, err := output(context.Background(), dir, nil, "qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "castra.toml"), []byte(text), 0o666)
}

// mageIn is mage in another directory.
func (p *project) mageIn(ctx context.Context, dir string, args ...string) (time.Duration, int64, error) {
	there := *p
	there.dir = dir
	return there.mage(ctx, args...)
}

// repeat runs a target again and again; the first time is a warm-up.
func (p *project) repeat(ctx context.Context, dir, verb string) (took []time.Duration, kib []int64, err error) {
	for i := range looks + 1 {
		d, k, err := p.mageIn(ctx, dir, verb)
		if err != nil {
			return nil, nil, err
		}
		if i > 0 {
			took, kib = append(took, d), append(kib, k)
		}
	}
	return took, kib, nil
}

// followLines appends lines to a serial log and waits for each on the stdout of
// `logs -follow`.
func (p *project) followLines(ctx context.Context) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	logs, err := filepath.Glob(filepath.Join(p.home, "projects", "shop-000-*", "logs", "vm-0-serial.log"))
	if err != nil || len(logs) != 1 {
		return nil, fmt.Errorf("%d serial logs found, not one", len(logs))
	}
	cmd := exec.CommandContext(ctx, p.binary, "logs", "-follow")
	cmd.Dir, cmd.Env = filepath.Join(p.tmp, "shop-000"), p.environment()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	took, err := appear(bufio.NewScanner(out), logs[0])
	cancel()
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // it was interrupted, which is how following ends
	return took, err
}

// appear waits for each line that it writes. The first ones, until following
// has begun, are not counted.
func appear(shown *bufio.Scanner, log string) ([]time.Duration, error) {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var took []time.Duration
	for i := range logLines + 1 {
		line := fmt.Sprintf("measured line %d", i)
		began := time.Now()
		if _, err := fmt.Fprintf(f, "\n%s\n", line); err != nil {
			return nil, err
		}
		for {
			if !shown.Scan() {
				return nil, errors.Join(errors.New("logs -follow ended"), shown.Err())
			}
			if text := shown.Text(); len(text) >= len(line) && text[len(text)-len(line):] == line {
				break
			}
		}
		if i > 0 {
			took = append(took, time.Since(began))
		}
	}
	return took, nil
}
