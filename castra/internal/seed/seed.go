package seed

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"
)

// Seed is what one guest is told at its first boot. Equal seeds give equal
// bytes.
type Seed struct {
	InstanceID     string   // a new one makes cloud-init configure the guest again
	Hostname       string   // one DNS label
	User           string   // "root", or a user that is made with sudo rights
	AuthorizedKeys []string // public keys that may log in as User, without options
	HostKey        Key      // the guest's SSH host key for this boot
	// Extra is the project's own user-data, of a kind that Check takes; it adds
	// to the above and cannot replace it. Empty: none.
	Extra []byte
}

var (
	hostnamePattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?$`)
	userPattern     = regexp.MustCompile(`^[a-z_][a-z0-9_-]*$`)
	idPattern       = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// UserData is the cloud-config, with Extra a MIME message of several. It is
// written so that a shell can read it as well as a YAML parser: one value a
// line, one list item a line, and the private key as a block. An Extra that
// Check refuses is left out; Write refuses it.
func (s Seed) UserData() []byte {
	if contentType, extra, err := readExtra(s.Extra); len(s.Extra) > 0 && err == nil {
		return s.multipart(contentType, extra)
	}
	return slices.Concat([]byte("#cloud-config\n"), s.settings(), s.logins())
}

// settings are what only we may say.
func (s Seed) settings() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "hostname: %s\n", scalar(s.Hostname))
	b.WriteString("disable_root: false\nssh_pwauth: false\nssh_deletekeys: true\n")
	b.WriteString("ssh_keys:\n  ed25519_private: |\n")
	for line := range strings.Lines(string(s.HostKey.Private)) {
		fmt.Fprintf(&b, "    %s\n", strings.TrimRight(line, "\r\n"))
	}
	fmt.Fprintf(&b, "  ed25519_public: %s\n", bareKey(s.HostKey.Public))
	return b.Bytes()
}

// logins are who may log in: lists, which a project may add to.
func (s Seed) logins() []byte {
	var b bytes.Buffer
	indent := ""
	if s.User != "root" {
		fmt.Fprintf(&b, "users:\n  - default\n  - name: %s\n", scalar(s.User))
		b.WriteString("    shell: /bin/sh\n    lock_passwd: true\n    sudo: ALL=(ALL) NOPASSWD:ALL\n")
		indent = "    "
	}
	fmt.Fprintf(&b, "%sssh_authorized_keys:\n", indent)
	for _, key := range s.AuthorizedKeys {
		fmt.Fprintf(&b, "%s  - %s\n", indent, bareKey(key))
	}
	return b.Bytes()
}

// MetaData names the instance.
func (s Seed) MetaData() []byte {
	return fmt.Appendf(nil, "instance-id: %s\nlocal-hostname: %s\n", scalar(s.InstanceID), scalar(s.Hostname))
}

// Write puts the seed image at path with mode 0600, replacing an older one
// only when it is complete. It refuses values that YAML or a guest would read
// as something else.
func (s Seed) Write(path string) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("seed %s: %w", path, err)
	}
	image := isoImage("cidata", []isoFile{
		{name: "meta-data", data: s.MetaData()},
		{name: "user-data", data: s.UserData()},
	})
	if err := save(path, image); err != nil {
		return fmt.Errorf("write seed: %w", err)
	}
	return nil
}

// save does not use renameio.WriteFile, which keeps the mode of a file that is
// already there. The temporary file stays beside the target: it holds a
// private key, which has no place in a shared temporary directory.
func save(path string, data []byte) error {
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer file.Cleanup()
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}

func (s Seed) check() error {
	switch {
	case !idPattern.MatchString(s.InstanceID) || len(s.InstanceID) > 128:
		return fmt.Errorf("instance ID %q: use letters, digits, . _ and -", s.InstanceID)
	case !hostnamePattern.MatchString(s.Hostname) || len(s.Hostname) > 63:
		return fmt.Errorf("hostname %q: is not one DNS label", s.Hostname)
	case !userPattern.MatchString(s.User) || len(s.User) > 32:
		return fmt.Errorf("user %q: is not a plain user name", s.User)
	case len(s.AuthorizedKeys) == 0:
		return fmt.Errorf("user %s: no key is authorized, so nobody could log in", s.User)
	}
	for i, line := range s.AuthorizedKeys {
		if err := checkKey(line); err != nil {
			return fmt.Errorf("authorized key %d: %w", i+1, err)
		}
	}
	if err := checkKey(s.HostKey.Public); err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	if _, err := ParseKey(s.HostKey.Private); err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	if len(s.Extra) > 0 {
		return Check(s.Extra)
	}
	return nil
}

func checkKey(line string) error {
	_, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return fmt.Errorf("parse public key: %w", err)
	case len(options) > 0:
		return fmt.Errorf("public key: has options %q", options)
	case len(rest) > 0:
		return fmt.Errorf("public key: has more than one line")
	}
	return nil
}

// bareKey drops the comment, which may hold characters that mean something in
// YAML.
func bareKey(line string) string {
	fields := strings.Fields(line)
	return strings.Join(fields[:min(2, len(fields))], " ")
}

var plainScalar = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9]*-[a-zA-Z0-9.-]*[a-zA-Z0-9]$`)

// scalar quotes what YAML could take for something other than a string: "on",
// "1e3", "2026-01-1". The usual name ("web-0") stays plain.
func scalar(s string) string {
	if plainScalar.MatchString(s) || s == "root" {
		return s
	}
	return `"` + s + `"`
}
