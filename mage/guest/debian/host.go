package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"castra.example/castra/mage/setup"
)

// host is what this computer has for the build.
type host struct {
	release, codename string            // of Debian: "12", "bookworm"
	tools             map[string]string // paths by name
}

// thisHost needs root, or what gives mmdebstrap a user namespace and
// mke2fs the owners of files.
func thisHost(ctx context.Context) (host, error) {
	if err := ctx.Err(); err != nil {
		return host{}, err
	}
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return host{}, &HostError{Reason: err.Error(), Next: "use a Debian"}
	}
	release := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			release[key] = strings.Trim(value, `"`)
		}
	}
	if release["ID"] != "debian" || release["VERSION_ID"] == "" || release["VERSION_CODENAME"] == "" || runtime.GOARCH != "amd64" {
		return host{}, &HostError{Reason: fmt.Sprintf("it is %s on %s, not a release of Debian on amd64", release["PRETTY_NAME"], runtime.GOARCH), Next: "use a Debian"}
	}
	h := host{release: release["VERSION_ID"], codename: release["VERSION_CODENAME"], tools: map[string]string{}}
	var missing []string
	for _, t := range slices.Concat(setup.Debian(), []setup.Tool{{Name: "qemu-img"}, {Name: "apt-get"}, {Name: "tar"}, {Name: "unshare"}}) {
		path, err := setup.Find(t.Name)
		if err != nil {
			missing = append(missing, t.Name)
		}
		h.tools[t.Name] = path
	}
	if len(missing) > 0 {
		return host{}, &HostError{Reason: "missing: " + strings.Join(missing, ", "), Next: "run once, as root or with sudo: go run ./mage guest:debian"}
	}
	if _, err := os.Stat(biosLoader); err != nil {
		return host{}, &HostError{Reason: err.Error(), Next: "install syslinux-common"}
	}
	return h, nil
}

// killWait is how long a program that is told to end may take: mmdebstrap
// unmounts and removes what it has made.
const killWait = 30 * time.Second

// tool runs one of the tools, and tells the end of what it printed if it fails.
func (b *builder) tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, b.host.tools[name], args...)
	cmd.Dir = b.work
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = killWait
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		said := bytes.TrimSpace(slices.Concat(stdout.Bytes(), stderr.Bytes()))
		return nil, fmt.Errorf("%s: %w: %s", name, err, said[max(0, len(said)-2000):])
	}
	return stdout.Bytes(), nil
}

// owned runs a tool as one that sees and sets who files belong to: as root
// itself, or under fakeroot, which keeps that in a file.
func (b *builder) owned(ctx context.Context, name string, args ...string) error {
	if os.Geteuid() == 0 {
		_, err := b.tool(ctx, name, args...)
		return err
	}
	state := b.path("owners")
	if err := errors.Join(touch(state)); err != nil {
		return err
	}
	_, err := b.tool(ctx, "fakeroot", append([]string{"-i", state, "-s", state, "--", b.host.tools[name]}, args...)...)
	return err
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// sources are the entries of this host's own apt that are of Debian's main
// archive, in the form of one line each.
func (b *builder) sources(ctx context.Context) ([]string, error) {
	out, err := b.tool(ctx, "apt-get", "indextargets", "--format", "$(CREATED_BY)|$(ORIGIN)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)")
	if err != nil {
		return nil, err
	}
	var all []string
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		f := strings.Split(lines.Text(), "|")
		if len(f) != 5 || f[0] != "Packages" || f[1] != "Debian" || f[2] != "main" {
			continue
		}
		suite := strings.TrimPrefix(f[3], b.host.codename)
		if line := "deb " + f[4] + " " + f[3] + " main"; slices.Contains([]string{"", "-updates", "-security"}, suite) && !slices.Contains(all, line) {
			all = append(all, line)
		}
	}
	if len(all) == 0 {
		return nil, &HostError{Reason: "its apt has no package lists of Debian's " + b.host.codename, Next: "run apt-get update"}
	}
	return all, nil
}

// aptOptions are those of this host's own apt that decide whether and how it
// reaches its sources.
func (b *builder) aptOptions(ctx context.Context) ([]string, error) {
	out, err := b.tool(ctx, "apt-config", "dump", "--format", `%F "%v";%n`, "Acquire")
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		for _, prefix := range []string{"Acquire::Check-Valid-Until ", "Acquire::Check-Date ", "Acquire::Retries ", "Acquire::http::", "Acquire::https::"} {
			if strings.HasPrefix(line, prefix) && !strings.HasSuffix(line, " \"\";\n") {
				all = append(all, "--aptopt="+strings.TrimSuffix(line, ";\n"))
			}
		}
	}
	return all, nil
}
