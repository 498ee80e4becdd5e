package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// project is a user's project in a temporary directory, with a compiled
// magefile and state of its own.
type project struct {
	tmp, dir, home, binary, repo string
	// env is added to the environment of the magefile.
	env []string
}

// noTemplates has every VM boot.
const noTemplates = "CASTRA_WARM=0"

const castraToml = `version = "0.2"

[project]
name = "bench"

[[vms]]
name = "vm"
image = "small"
cpus = 1
memory = "512 MiB"
`

const (
	withCastra = `//go:build mage

package main

import (
	//mage:import
	_ "castra.example/castra/castra"
)
`
	withoutCastra = `//go:build mage

package main

func Nothing() {}
`
)

// newProject must be called in the repository's root.
func newProject(ctx context.Context) (*project, error) {
	repo, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "castra-bench-")
	if err != nil {
		return nil, err
	}
	p := &project{tmp: tmp, dir: filepath.Join(tmp, "project"), home: homeOr(filepath.Join(tmp, "home")), repo: repo}
	p.binary = filepath.Join(tmp, "magefile")
	if err := p.scaffold(p.dir, withCastra); err != nil {
		return nil, errors.Join(err, p.remove())
	}
	if err := os.WriteFile(filepath.Join(p.dir, "castra.toml"), []byte(castraToml), 0o666); err != nil {
		return nil, errors.Join(err, p.remove())
	}
	if _, err := output(ctx, p.dir, p.goEnvironment(), "go", "tool", "mage", "-compile", p.binary); err != nil {
		return nil, errors.Join(err, p.remove())
	}
	return p, nil
}

// homeOr is CASTRA_HOME, so that the guest need not be built anew, or else a
// directory of the run's own.
func homeOr(other string) string {
	if home := os.Getenv("CASTRA_HOME"); home != "" {
		return home
	}
	return other
}

// scaffold writes a module with a magefile. The modules it needs are the
// repository's own, so nothing has to be resolved.
func (p *project) scaffold(dir, magefile string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(p.repo, "go.mod"))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(p.repo, "go.sum"))
	if err != nil {
		return err
	}
	const module = "castra.example/castra"
	text := strings.Replace(string(mod), "module "+module, "module bench.example/project", 1) +
		fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %s => %s\n", module, module, p.repo)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o666),
		os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o666),
		os.WriteFile(filepath.Join(dir, "magefile.go"), []byte(magefile), 0o666),
	)
}

// empty is the same project without castra.
func (p *project) empty() (string, error) {
	dir := filepath.Join(p.tmp, "empty")
	return dir, p.scaffold(dir, withoutCastra)
}

// mage runs a target of the compiled magefile, from the start of the process
// to its end, and tells the time and its peak memory in KiB.
func (p *project) mage(ctx context.Context, args ...string) (time.Duration, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.binary, args...)
	cmd.Dir, cmd.Env = p.dir, p.environment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("mage %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	took := time.Since(began)
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return took, usage.Maxrss, nil
}

func (p *project) environment() []string {
	return slices.Concat(os.Environ(), []string{"CASTRA_HOME=" + p.home, "CASTRA_CONFIG="}, p.env)
}

// goEnvironment has Go build inside the run's own directory: one that is ended
// amid a build leaves its files there.
func (p *project) goEnvironment() []string { return []string{"GOTMPDIR=" + p.tmp} }

// remove takes down what runs and deletes the temporary directory, through a
// root that cannot be left.
func (p *project) remove() error {
	var downErr error
	if _, err := os.Stat(p.binary); err == nil {
		_, _, downErr = p.mage(context.Background(), "down")
	}
	parent, err := os.OpenRoot(filepath.Dir(p.tmp))
	if err != nil {
		return err
	}
	defer parent.Close()
	return errors.Join(downErr, parent.RemoveAll(filepath.Base(p.tmp)))
}

// output runs a program in dir and gives what it printed.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
