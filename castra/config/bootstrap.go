package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	defaultRemoteDir = "/tmp/castra-bootstrap"
	defaultHandshake = 120
)

var envPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// systemDirs may hold no directory that comes and goes with each run.
var systemDirs = []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var"}

// bootstrapDefaults reads [bootstrap], which stands for what VMs leave out.
func (l *loader) bootstrapDefaults(t *table) Bootstrap {
	return l.shared(t, Bootstrap{Mode: "auto", HandshakeTimeout: defaultHandshake * time.Second, RemoteDir: defaultRemoteDir})
}

// shared reads the keys that [bootstrap] and [vms.bootstrap] have in common.
func (l *loader) shared(t *table, base Bootstrap) Bootstrap {
	b := base
	if _, ok := t.m["mode"]; ok {
		b.Mode = t.oneOf("mode", "auto", "skip", "always")
	}
	t.value("mode")
	b.HandshakeTimeout = time.Duration(t.integer("handshake_timeout_secs", int(base.HandshakeTimeout/time.Second), 1, maxSecs)) * time.Second
	b.RemoteDir = t.str("remote_dir", base.RemoteDir)
	if !path.IsAbs(b.RemoteDir) || path.Clean(b.RemoteDir) != b.RemoteDir || slices.Contains(systemDirs, b.RemoteDir) {
		t.fault("remote_dir", fmt.Sprintf("%q may not come and go with each run", shorten(b.RemoteDir)), "write an absolute path of a directory for Castra alone, such as "+defaultRemoteDir)
	}
	b.Env = maps.Clone(base.Env)
	if b.Env == nil {
		b.Env = map[string]string{}
	}
	env := t.strings("env")
	for _, name := range slices.Sorted(maps.Keys(env)) {
		switch {
		case !envPattern.MatchString(name):
			t.fault("env."+name, "it is no name of a variable", "write letters, digits and _, and no digit first")
		case strings.HasPrefix(name, "CASTRA_"):
			t.fault("env."+name, "names that begin with CASTRA_ are Castra's own", "give it another name")
		default:
			b.Env[name] = env[name]
		}
	}
	return b
}

func (l *loader) bootstrap(t *table, base Bootstrap) Bootstrap {
	b := l.shared(t, base)
	if s := t.str("script", ""); s != "" {
		if b.Script = l.path(t, "script", s); b.Script != "" {
			l.checkScript(t, b.Script)
		}
	}
	if s := t.str("payload", ""); s != "" {
		b.Payload = l.path(t, "payload", s)
		if st, err := os.Stat(b.Payload); err != nil {
			t.fault("payload", reason(err, b.Payload), "correct the path; it is relative to "+FileName)
		} else if !st.IsDir() && !st.Mode().IsRegular() {
			t.fault("payload", b.Payload+" is neither a file nor a directory", "give one of these")
		}
	}
	b.VerifyCommand = t.str("verify_command", "")
	b.VerifyPath = t.str("verify_path", "")
	if b.VerifyPath != "" && !path.IsAbs(b.VerifyPath) {
		t.fault("verify_path", "it is not absolute", "write the path in the guest from /")
	}
	t.done()
	return b
}

// defaultScript is bootstrap/<vm>/run.sh or bootstrap/<role>/run.sh, if there
// is one.
func (l *loader) defaultScript(vm VM) string {
	for _, name := range []string{vm.Name, vm.Role} {
		script := filepath.Join(l.p.Dir, "bootstrap", name, "run.sh")
		if _, err := os.Stat(script); err == nil {
			l.checkScript(&table{f: l.f, path: fmt.Sprintf("vms.%s.bootstrap", vm.Name)}, script)
			return script
		}
	}
	return ""
}

const scriptLimit = 1 << 20

// checkScript finds what would only come out in the guest.
func (l *loader) checkScript(t *table, script string) {
	st, err := os.Stat(script)
	switch {
	case err != nil:
		t.fault("script", reason(err, script), "correct the path; it is relative to "+FileName)
		return
	case !st.Mode().IsRegular():
		t.fault("script", script+" is not a file", "give the path of a script")
		return
	case st.Size() == 0:
		t.fault("script", script+" is empty", "write what is to be done, or leave script out")
		return
	case st.Size() > scriptLimit:
		t.fault("script", script+" is larger than 1 MiB", "move what it carries to payload")
		return
	}
	data, err := os.ReadFile(script)
	if err != nil {
		t.fault("script", reason(err, script), "")
		return
	}
	if first, _, _ := bytes.Cut(data, []byte("\n")); bytes.HasSuffix(first, []byte("\r")) {
		t.fault("script", script+" has the line ends of Windows (CRLF), which a shell takes for part of its commands", "save it with LF")
	}
}

// file resolves the path of a file that must exist.
func (l *loader) file(t *table, key, p string) string {
	if _, ok := t.m[key]; !ok {
		return ""
	}
	if p == "" {
		t.fault(key, "it is empty", "write a path, or leave it out")
		return ""
	}
	abs := l.path(t, key, p)
	if abs == "" {
		return ""
	}
	st, err := os.Stat(abs)
	switch {
	case err != nil:
		t.fault(key, reason(err, abs), "correct the path; it is relative to "+FileName)
	case !st.Mode().IsRegular():
		t.fault(key, abs+" is not a file", "give the path of a file")
	}
	return abs
}

// reason says in a few words why a file cannot be had.
func reason(err error, path string) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path + " does not exist"
	case errors.Is(err, fs.ErrPermission):
		return path + " may not be read"
	default:
		return err.Error()
	}
}
