package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

func (l *loader) project(t *table) {
	l.version(t)
	t.refuse("broker", "there is no broker any more", "remove the table: VMs need no process beside QEMU")
	project := t.sub("project")
	l.name(project)
	l.stateDir(project)
	l.p.Warm = project.boolean("warm", true)
	if features := project.sub("features"); features.has("enable_vm_vizier") { // others are for later versions
		l.warn(features.at("enable_vm_vizier"), "there is no vizier any more", "remove the key")
	}
	project.done()
	l.lifecycle(t.sub("lifecycle"))
	defaults := t.sub("bootstrap")
	base := l.bootstrapDefaults(defaults)
	defaults.done()
	workflows := t.sub("workflows")
	workflows.value("init") // kept for later versions
	workflows.done()
	if array, ok := t.m["vms"].([]any); t.missing("vms") || ok && len(array) == 0 {
		t.fault("vms", "there is no VM", `add [[vms]] with name = "web"`)
	}
	l.vms(t.list("vms", maxVMs), base)
	t.done()
}

var versionPattern = regexp.MustCompile(`^(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})(\.(0|[1-9][0-9]{0,3}))?$`)

// version decides which schema the file has: 0.1 or 0.2. A newer one is read
// as 0.2, with a warning.
func (l *loader) version(t *table) {
	const help = `write version = "0.2"`
	s, ok := t.required("version", help)
	if !ok {
		return
	}
	l.p.Version = s
	m := versionPattern.FindStringSubmatch(s)
	switch {
	case m == nil:
		t.fault("version", fmt.Sprintf("%q is no version", shorten(s)), help)
	case m[1] == "0" && m[2] == "0":
		t.fault("version", "there is no schema 0.0", help)
	case m[1] == "0" && m[2] == "1":
		l.single = true
	case m[1] == "0" && m[2] == "2":
	default:
		l.warn("version", fmt.Sprintf("schema %s is newer than the 0.2 this Castra reads", s), "update Castra if something does not work")
	}
}

func (l *loader) warn(path, problem, help string) {
	if l.recorded { // was said when it was loaded
		return
	}
	l.p.Warnings = append(l.p.Warnings, Error{File: l.f.file, Line: l.f.lines.of(path), Key: path, Problem: problem, Help: help})
}

func (l *loader) name(t *table) {
	const help = `write a name such as "shop" under [project]: 1 to 64 printable characters, without / and \, and no space at the ends`
	s, ok := t.required("name", help)
	if !ok {
		return
	}
	l.p.Name = s
	problem := ""
	switch {
	case s == "":
		problem = "it is empty"
	case len([]rune(s)) > 64:
		problem = fmt.Sprintf("it has %d characters", len([]rune(s)))
	case strings.ContainsAny(s, `/\`):
		problem = fmt.Sprintf("%q holds a path separator", s)
	case strings.TrimSpace(s) != s:
		problem = fmt.Sprintf("%q has a space at one of its ends", s)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		problem = fmt.Sprintf("%q holds a character that cannot be printed", s)
	default:
		return
	}
	t.fault("name", problem, help)
}

// stateDir takes a directory that Castra may fill and empty: one that holds
// the project would be emptied with it.
func (l *loader) stateDir(t *table) {
	const help = `write state_dir = ".castra", or leave it out to keep state in the home directory`
	s, ok := t.filled("state_dir", help)
	if !ok {
		return
	}
	abs, ok := t.resolve("state_dir", s)
	if !ok {
		return
	}
	rel, err := filepath.Rel(realPath(abs), l.p.Dir)
	switch {
	case l.recorded:
		l.p.StateDir = abs
	case err != nil || rel != ".." && !strings.HasPrefix(rel, "../"):
		t.fault("state_dir", fmt.Sprintf("%s holds the project itself", abs), help)
	case unfit(abs):
		t.fault("state_dir", fmt.Sprintf("%s is a file, or a directory of the system", abs), help)
	default:
		l.p.StateDir = abs
	}
}

// unfit tells that a path is none where files of Castra may come and go.
func unfit(dir string) bool {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return true
	}
	parent, top := filepath.Split(realPath(dir))
	return parent == "/" && slices.Contains([]string{"bin", "boot", "dev", "etc", "home", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"}, top)
}

const maxSecs = 24 * 60 * 60

func (l *loader) lifecycle(t *table) {
	secs := func(key string, otherwise, least int) time.Duration {
		return time.Duration(t.integer(key, otherwise, least, maxSecs)) * time.Second
	}
	l.p.Lifecycle = Lifecycle{
		Graceful:  secs("graceful_shutdown_wait_secs", 20, 0),
		Terminate: secs("sigterm_wait_secs", 10, 0),
		Kill:      secs("sigkill_wait_secs", 5, 1),
	}
	t.done()
}
