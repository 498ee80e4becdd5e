package small

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// apt asks about and fetches the packages of one architecture: with the system's lists, or, when private is set, with lists of
// its own in that directory. Neither changes what dpkg or apt know of this host.
type apt struct {
	host    tools
	arch    string
	private string
}

// choose returns the candidate of each need: the first of its names that the lists have. Needs without one are a *HostError.
func (a apt) choose(ctx context.Context, needs []need) ([]pkg, error) {
	found, err := a.show(ctx, slices.Concat(needs...))
	if err != nil {
		return nil, err
	}
	list, missing := chosen(needs, found)
	if len(missing) > 0 {
		return nil, &HostError{Packages: missing, Arch: a.arch, System: systemName("/etc/os-release")}
	}
	return list, nil
}

// chosen picks from found; missing are the needs that nothing in it answers, as people read them.
func chosen(needs []need, found []pkg) (list []pkg, missing []string) {
	for _, n := range needs {
		at := -1
		for _, name := range n {
			if at = slices.IndexFunc(found, func(p pkg) bool { return p.Name == name && p.fetchable() }); at >= 0 {
				break
			}
		}
		if at < 0 {
			missing = append(missing, strings.Join(n, " or "))
			continue
		}
		list = append(list, found[at])
	}
	return list, missing
}

// closure adds to list what it depends on, and what that depends on.
func (a apt) closure(ctx context.Context, list []pkg, skip []string) ([]pkg, error) {
	seen := slices.Clone(skip)
	for _, p := range list {
		seen = append(seen, p.Name)
	}
	for level := list; len(level) > 0; list = slices.Concat(list, level) {
		var names []need
		for _, p := range level {
			for _, d := range p.depends {
				if !slices.Contains(seen, d) {
					seen, names = append(seen, d), append(names, need{d})
				}
			}
		}
		var err error
		if level, err = a.choose(ctx, names); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// show returns the candidates of those packages that the lists have; it is an error that they have none.
func (a apt) show(ctx context.Context, names []string) ([]pkg, error) {
	if len(names) == 0 {
		return nil, nil
	}
	args := append(a.options(), "show", "--no-all-versions")
	out, err := command{path: a.host.aptCache, args: append(args, names...)}.run(ctx)
	return parsePackages(out), err
}

// parsePackages reads the fields Castra needs from control paragraphs.
func parsePackages(text []byte) []pkg {
	var list []pkg
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ": ")
		if !ok || strings.HasPrefix(key, " ") {
			continue
		}
		if key == "Package" {
			list = append(list, pkg{Name: value})
		}
		if len(list) == 0 {
			continue
		}
		p := &list[len(list)-1]
		switch key {
		case "Version":
			p.Version = value
		case "Filename":
			p.File = path.Base(value)
		case "SHA256":
			p.SHA256 = value
		case "Depends", "Pre-Depends":
			p.depends = append(p.depends, parseDepends(value)...)
		}
	}
	return list
}

// parseDepends gives the names alone, of alternatives the first.
func parseDepends(value string) []string {
	var names []string
	for item := range strings.SplitSeq(value, ",") {
		name, _, _ := strings.Cut(item, "|")
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		name, _, _ = strings.Cut(name, ":")
		names = append(names, name)
	}
	return names
}

// download has apt fetch packages, checks them again and moves them into dir under the names that show gave.
func (a apt) download(ctx context.Context, missing []pkg, incoming, dir string) error {
	if err := os.MkdirAll(incoming, 0o755); err != nil {
		return err
	}
	args := append(a.options(), "download")
	for _, p := range missing {
		args = append(args, p.Name+"="+p.Version)
	}
	if _, err := (command{path: a.host.aptGet, args: args, dir: incoming}).run(ctx); err != nil {
		return err
	}
	files, err := os.ReadDir(incoming)
	if err != nil {
		return err
	}
	digests := make(map[string]string)
	for _, f := range files {
		file := filepath.Join(incoming, f.Name())
		digest, err := fileDigest(file)
		if err != nil {
			return err
		}
		digests[digest] = file
	}
	for _, p := range missing {
		file, ok := digests[p.SHA256]
		if !ok {
			return fmt.Errorf("package %s %s: what apt fetched has another digest than sha256:%s", p.Name, p.Version, p.SHA256)
		}
		if err := os.Rename(file, filepath.Join(dir, p.File)); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the directories of private lists, with a status file that says nothing is installed.
func (a apt) prepare() error {
	if a.private == "" {
		return nil
	}
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.private, dir), 0o755); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(a.private, "status"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func (a apt) update(ctx context.Context) error {
	_, err := command{path: a.host.aptGet, args: append(a.options(), "update")}.run(ctx)
	return err
}

// options make apt quiet and, for private lists, keep it out of the directories that belong to root and to one architecture's
// package lists. As root it would change to a user that may not write below home.
func (a apt) options() []string {
	opts := []string{"-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30"}
	if a.private == "" {
		return opts
	}
	return append(opts, "-o", "Dir::State="+filepath.Join(a.private, "state"), "-o", "Dir::Cache="+filepath.Join(a.private, "cache"),
		"-o", "Dir::State::status="+filepath.Join(a.private, "status"), "-o", "APT::Update::Error-Mode=any",
		"-o", "APT::Architecture="+a.arch, "-o", "APT::Architectures="+a.arch,
		"-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false")
}

// systemName is what this host calls its system, for messages.
func systemName(osRelease string) string {
	const unknown = "this host"
	text, err := os.ReadFile(osRelease)
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return unknown
}
