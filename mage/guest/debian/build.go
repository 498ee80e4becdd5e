package debian

import (
	"bufio"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Names below a build's directory.
const (
	outDir  = "out" // becomes the guest's directory
	treeDir = "tree"
)

type builder struct {
	host    host
	work    string
	log     io.Writer
	started time.Time
}

func (b *builder) path(elem ...string) string {
	return filepath.Join(append([]string{b.work}, elem...)...)
}

func (b *builder) run(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"installing packages by mmdebstrap, which takes a minute or two", b.bootstrap},
		{"unpacking", b.unpack},
		{"filling the root file system", b.makeRoot},
		{"filling the boot partition", b.makeESP},
		{"joining them to a disk", b.makeDisk},
		{"writing the manifest", b.writeManifest},
	} {
		fmt.Fprintf(b.log, "%5.1f s  %s\n", time.Since(b.started).Seconds(), step.name)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// bootstrap makes root.tar. What the build gives mmdebstrap goes as arguments
// and through its own hooks, since a user namespace cannot read our files.
func (b *builder) bootstrap(ctx context.Context) error {
	sources, err := b.sources(ctx)
	if err != nil {
		return err
	}
	args, err := b.aptOptions(ctx)
	if err != nil {
		return err
	}
	ours, err := archive(early)
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.path("early.tar"), ours, 0o600); err != nil {
		return err
	}
	args = append(args, "--mode=auto", "--variant=apt", "--format=tar", "--architectures=amd64", "--include="+strings.Join(packages, ","),
		"--dpkgopt=force-unsafe-io", "--essential-hook=tar-in early.tar /")
	for _, option := range excludes {
		args = append(args, "--dpkgopt="+option)
	}
	for _, hook := range hooks {
		args = append(args, "--customize-hook="+hook)
	}
	args = append(append(args, b.host.codename, "root.tar"), sources...)
	if _, err := b.tool(ctx, "unshare", "--mount", "true"); os.Geteuid() != 0 || err != nil {
		_, err := b.tool(ctx, "mmdebstrap", args...)
		return err
	}
	// As root it mounts /proc and more into its tree. In a mount namespace of
	// its own these go with it however it ends, so that its tree may lie among
	// ours and be removed with them.
	_, err = b.tool(ctx, "unshare", append([]string{"--mount", "--", "env", "TMPDIR=" + b.work, b.host.tools["mmdebstrap"]}, args...)...)
	return err
}

// unpack leaves out the device nodes, which not every root may make; the
// kernel mounts its own over them.
func (b *builder) unpack(ctx context.Context) error {
	if err := errors.Join(os.Mkdir(b.path(treeDir), 0o755), os.Mkdir(b.path(outDir), 0o755)); err != nil {
		return err
	}
	if err := b.owned(ctx, "tar", "-x", "-p", "--numeric-owner", "--exclude=./dev/*", "-C", treeDir, "-f", "root.tar"); err != nil {
		return err
	}
	return os.Remove(b.path("root.tar"))
}

// Manifest says what a guest was made from. It lies beside it as manifest.json.
type Manifest struct {
	Recipe   string            `json:"recipe"` // sha256 over lists and constants
	Packages map[string]string `json:"packages"`
	Bytes    int64             `json:"bytes"` // of disk.qcow2
	SHA512   string            `json:"sha512"`
	Seconds  float64           `json:"seconds"` // the build took
}

// ReadManifest reads the manifest of a built guest.
func ReadManifest(path string) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", path, err)
	}
	return m, nil
}

func (b *builder) writeManifest(context.Context) error {
	installed, err := readStatus(os.DirFS(b.path(treeDir)))
	if err != nil {
		return err
	}
	disk, err := os.Open(b.path(outDir, "disk.qcow2"))
	if err != nil {
		return err
	}
	defer disk.Close()
	sum := sha512.New()
	size, err := io.Copy(sum, disk)
	if err != nil {
		return err
	}
	m := Manifest{Recipe: recipeDigest(), Packages: installed, Bytes: size, SHA512: hex.EncodeToString(sum.Sum(nil)), Seconds: time.Since(b.started).Seconds()}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(disk.Chmod(0o444), os.WriteFile(b.path(outDir, "manifest.json"), append(data, '\n'), 0o444))
}

// readStatus reads dpkg's list of what is installed.
func readStatus(tree fs.FS) (map[string]string, error) {
	f, err := tree.Open("var/lib/dpkg/status")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, name := map[string]string{}, ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		switch key, value, _ := strings.Cut(lines.Text(), ": "); key {
		case "Package":
			name = value
		case "Version":
			all[name] = value
		}
	}
	return all, lines.Err()
}
