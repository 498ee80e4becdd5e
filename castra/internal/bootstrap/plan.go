package bootstrap

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Plan is one VM's bootstrap.
type Plan struct {
	VM               string
	Run              string            // name of this run; its directory in the guest is called so
	Mode             string            // "skip", "auto" or "always"; goes into the log
	Script           string            // absolute path on this computer; "": nothing to run
	Payload          string            // file or directory that goes along; "": none
	RemoteDir        string            // directory in the guest, below which each run has its own; "": /tmp/castra-bootstrap
	Env              map[string]string // values are secrets
	VerifyCommand    string            // must exit with 0 afterwards; "": not checked
	VerifyPath       string            // must exist in the guest afterwards; "": not checked
	HandshakeTimeout time.Duration     // for the guest to let us in; 0: 120 s
	LogPath          string            // where the run's JSON log goes
	Artifact         string            // Digest of the plan, for the log and the events
	Key              []byte            // of Digest; a secret of the workspace
}

const (
	defaultRemoteDir = "/tmp/castra-bootstrap"
	defaultHandshake = 120 * time.Second
)

var (
	runPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	keyPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func (p Plan) withDefaults() Plan {
	if p.RemoteDir == "" {
		p.RemoteDir = defaultRemoteDir
	}
	if trimmed := strings.TrimRight(p.RemoteDir, "/"); trimmed != "" {
		p.RemoteDir = trimmed // a trailing slash would follow a symlink
	}
	if p.HandshakeTimeout <= 0 {
		p.HandshakeTimeout = defaultHandshake
	}
	return p
}

func (p Plan) check() error {
	if !runPattern.MatchString(p.Run) || len(p.Run) > 128 {
		return fmt.Errorf("run %q: use letters, digits, . _ and -", p.Run)
	}
	if !strings.HasPrefix(p.RemoteDir, "/") {
		return fmt.Errorf("remote_dir %q: is not an absolute path", p.RemoteDir)
	}
	for _, path := range []string{p.RemoteDir, p.VerifyPath, p.VerifyCommand} {
		if strings.Contains(path, "\x00") {
			return fmt.Errorf("%q: has a NUL byte", path)
		}
	}
	for _, key := range p.keys() {
		if !keyPattern.MatchString(key) {
			return fmt.Errorf("env %q: is not a name of a variable", key)
		}
		if strings.Contains(p.Env[key], "\x00") {
			return fmt.Errorf("env %s: the value has a NUL byte, which no environment can hold", key)
		}
	}
	return nil
}

func (p Plan) keys() []string { return slices.Sorted(maps.Keys(p.Env)) }
