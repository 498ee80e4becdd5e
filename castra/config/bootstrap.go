package config

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	defaultRemoteDir = "/tmp/castra-bootstrap"
	defaultHandshake = 120 // seconds
)

var envPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// bootstrapDefaults reads [bootstrap], which stands for what VMs leave out.
func (l *loader) bootstrapDefaults(t *table) Bootstrap {
	return l.shared(t, Bootstrap{Mode: "auto", HandshakeTimeout: defaultHandshake * time.Second, RemoteDir: defaultRemoteDir})
}

// shared reads the keys that [bootstrap] and [vms.bootstrap] have in common.
func (l *loader) shared(t *table, base Bootstrap) Bootstrap {
	b := base
	b.Mode = t.oneOf("mode", base.Mode, "auto", "always", "skip")
	b.HandshakeTimeout = time.Duration(t.integer("handshake_timeout_secs", int(base.HandshakeTimeout/time.Second), 1, maxSecs)) * time.Second
	if s, ok := t.str("remote_dir"); ok {
		if problem := badRemoteDir(s); problem != "" {
			t.fault("remote_dir", fmt.Sprintf("%q %s", shorten(s), problem), "write the absolute path of a directory for Castra alone, such as "+defaultRemoteDir)
		}
		b.RemoteDir = s
	}
	b.Env = maps.Clone(base.Env)
	if b.Env == nil {
		b.Env = map[string]string{}
	}
	maps.Copy(b.Env, env(t.secrets("env")))
	return b
}

// badRemoteDir says why a directory of the guest may not be filled and emptied
// with each run; "" when it may.
func badRemoteDir(dir string) string {
	switch {
	case !path.IsAbs(dir):
		return "is not absolute"
	case path.Clean(dir) != dir:
		return "is not in its shortest form, which is " + path.Clean(dir)
	case strings.ContainsAny(dir, "\r\n"): // the guest tells in one line where its directory is
		return "holds a line break"
	}
	const itself = "is a directory of the system, and each run empties it"
	for _, pattern := range []string{"/", "/home", "/home/*", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var", "/var/*"} {
		if match, _ := path.Match(pattern, dir); match {
			return itself
		}
	}
	switch top, _, _ := strings.Cut(dir[1:], "/"); top {
	case "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr":
		return "is within a directory of the system, and each run empties it"
	}
	return ""
}

func (l *loader) bootstrap(t *table, base Bootstrap) Bootstrap {
	b := l.shared(t, base)
	if b.Script, _ = l.existing(t, "script"); b.Script != "" && !l.recorded {
		l.checkScript(t, b.Script)
	}
	payload, mode := l.existing(t, "payload")
	if b.Payload = payload; payload != "" && !l.recorded && !mode.IsDir() && !mode.IsRegular() {
		t.fault("payload", payload+" is neither a file nor a directory", "give the path of one of these")
	}
	b.VerifyCommand, _ = t.str("verify_command")
	if s, ok := t.str("verify_path"); ok {
		if b.VerifyPath = s; !path.IsAbs(s) {
			t.fault("verify_path", fmt.Sprintf("%q is not absolute", shorten(s)), "write the path in the guest, from /")
		}
	}
	t.done()
	return b
}

// defaultScript is bootstrap/<vm>/run.sh or bootstrap/<role>/run.sh, if there
// is one. The table at path stands for the VM in faults. A snapshot names the
// script that it was made with.
func (l *loader) defaultScript(vm VM, path string) string {
	if l.recorded {
		return ""
	}
	for _, name := range []string{vm.Name, vm.Role} {
		script := filepath.Join(l.p.Dir, "bootstrap", name, "run.sh")
		if _, err := os.Lstat(script); err != nil {
			continue
		}
		if !l.scripts[script] {
			l.scripts[script] = true
			l.checkScript(&table{f: l.f, path: join(path, "bootstrap")}, script)
		}
		return script
	}
	return ""
}

// checkScriptless refuses what only a script could use, where there is none.
func (l *loader) checkScriptless(b Bootstrap, path string) {
	if b.Script != "" || l.recorded || l.f.has(join(path, "script")) {
		return
	}
	for _, key := range []struct{ name, value string }{{"payload", b.Payload}, {"verify_command", b.VerifyCommand}, {"verify_path", b.VerifyPath}} {
		if key.value != "" {
			l.f.add(join(path, key.name), "it means nothing without a script", "add script, or write bootstrap/<name of the VM>/run.sh")
		}
	}
}

// checkScript finds what would only come out in the guest.
func (l *loader) checkScript(t *table, script string) {
	f, err := os.OpenFile(script, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.fault("script", reason(err, script), t.pathHelp())
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		t.fault("script", script+" is not a regular file", "give the path of a script")
		return
	}
	head, err := io.ReadAll(io.LimitReader(f, 4<<10))
	first, _, _ := bytes.Cut(head, []byte("\n"))
	switch {
	case err != nil:
		t.fault("script", reason(err, script), t.pathHelp())
	case len(head) == 0:
		t.fault("script", script+" is empty", "write into it what is to be done in the guest, or remove it")
	case bytes.HasSuffix(first, []byte("\r")):
		t.fault("script", script+" has CRLF at the ends of lines, and a shell takes the CR for part of its commands", "save it with LF")
	}
}
