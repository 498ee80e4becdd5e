package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	workspaces = 100
	runningVMs = 10
	looks      = 10 // at the registry, and at the plan
	logLines   = 50
	lifetime   = 30 * time.Minute // of a fake QEMU that nothing ends

	statusBar = 150 * time.Millisecond
	memoryBar = 60e6 // bytes
	planBar   = 100 * time.Millisecond
	lineBar   = 100 * time.Millisecond
)

// Registry measures status, plan and logs at a large scale.
// Status is asked for 100 workspaces from an empty directory.
// Ten of the workspaces run a VM, the plan has 64 VMs, and a line of a log is
// followed until it is shown. QEMU is the fake of the tests: what is measured
// is Castra alone. It fails where a bar is missed.
func Registry(ctx context.Context) (err error) {
	restore := keepEnvironment()
	defer func() { err = errors.Join(err, restore()) }()
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
	nowhere := filepath.Join(p.tmp, "nowhere") // an empty directory
	if err := os.Mkdir(nowhere, 0o777); err != nil {
		return err
	}
	status, kib, err := p.repeat(ctx, nowhere, "status")
	if err != nil {
		return err
	}
	if err := p.allRun(ctx, nowhere); err != nil { // all the while, too: a fake does not come back
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
		reachedMemory(most(kib)),
		reached("plan of 64 VMs", plan, median(plan), planBar),
		reached("a line of a followed log", shown, most(shown), lineBar),
	)
}

// reached prints a figure and its bar; that it was missed is an error.
func reached(name string, took []time.Duration, figure, asked time.Duration) error {
	return verdict(figure <= asked, "%s: median %s, min %s, max %s; %s of at most %s",
		name, seconds(median(took)), seconds(least(took)), seconds(most(took)), seconds(figure), seconds(asked))
}

func reachedMemory(kib int64) error {
	return verdict(kib<<10 <= memoryBar, "peak memory of status: %.1f MiB of at most %.1f MiB (60 MB)",
		float64(kib)/(1<<10), float64(memoryBar)/(1<<20))
}

func verdict(ok bool, format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	if !ok {
		fmt.Fprintln(os.Stdout, line+": missed")
		return errors.New("bar missed: " + line)
	}
	fmt.Fprintln(os.Stdout, line+": ok")
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
	if _, err := output(ctx, p.repo, p.goEnvironment(), "go", "test", "-c", "-o", binary, "./castra/internal/qemutest"); err != nil {
		return err
	}
	for _, name := range []string{"qemu-system-x86_64", "qemu-system-aarch64", "qemu-img"} {
		if err := os.Symlink(binary, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for name, value := range fakeEnvironment(dir) {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// fakeEnvironment is what the fakes in dir need, and what must not be about
// another project.
func fakeEnvironment(dir string) map[string]string {
	return map[string]string{
		"PATH":         dir + string(os.PathListSeparator) + os.Getenv("PATH"),
		"CASTRA_ACCEL": "tcg", "CASTRA_WORKSPACE": "", "CASTRA_QCOW": "", "CASTRA_WARM": "0",
		"CASTRA_FAKE_QEMU": "", "CASTRA_FAKE_QEMU_IMG": "", "CASTRA_FAKE_LIFETIME": lifetime.String(),
	}
}

// keepEnvironment gives a function that makes the environment what it is now:
// a target that runs after this one must not meet the fakes.
func keepEnvironment() (restore func() error) {
	was := os.Environ()
	return func() error {
		os.Clearenv()
		var errs []error
		for _, entry := range was {
			name, value, _ := strings.Cut(entry, "=")
			errs = append(errs, os.Setenv(name, value))
		}
		return errors.Join(errs...)
	}
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

// allRun makes sure that status sees the VMs that should run, all of them
// running.
func (p *project) allRun(ctx context.Context, dir string) error {
	text, err := output(ctx, dir, p.environment(), p.binary, "status", "-json")
	if err != nil {
		return err
	}
	var seen struct {
		Workspaces []struct{ VMs []struct{ State string } }
	}
	if err := json.Unmarshal([]byte(text), &seen); err != nil {
		return err
	}
	running := 0
	for _, ws := range seen.Workspaces {
		for _, vm := range ws.VMs {
			if vm.State == "running" {
				running++
			}
		}
	}
	made, err := filepath.Glob(filepath.Join(p.home, "projects", "shop-*"))
	if err == nil && (running != runningVMs || len(made) != workspaces) {
		err = fmt.Errorf("%d VMs run in %d workspaces, not %d in %d", running, len(made), runningVMs, workspaces)
	}
	return err
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

// appear waits for each line that it writes. The first, which waits until
// following has begun, is not counted. Pauses that grow spread the lines over
// the time between two looks at the log.
func appear(shown *bufio.Scanner, log string) ([]time.Duration, error) {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var took []time.Duration
	for i := range logLines + 1 {
		line := fmt.Sprintf("measured line %d", i)
		<-time.After(time.Duration(i) * time.Millisecond)
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
