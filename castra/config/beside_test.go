package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// script makes "web" run setup/run.sh.
const script = web + "[vms.bootstrap]\nscript = \"setup/run.sh\"\n"

// writeBeside is write with a bootstrap.toml beside setup/run.sh.
func writeBeside(t testing.TB, source, beside string, files ...string) string {
	file := write(t, source, append(files, "setup/run.sh")...)
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "setup", besideName), []byte(beside), 0o644))
	return file
}

func TestBeside(t *testing.T) {
	const ssh = "[vms.ssh]\nuser = \"root\"\nport = 2022\n"
	const castra = head + "[bootstrap.env]\nA = \"1\"\nB = \"1\"\nC = \"1\"\n" + web + "[vms.bootstrap]\nscript = \"setup/run.sh\"\nenv = { B = \"2\", C = \"2\" }\n"
	for name, c := range map[string]struct {
		castra, beside string
		ssh            SSH
		forwards       int
		env            map[string]string
	}{
		"empty":    {castra: castra + ssh, ssh: SSH{User: "root", Port: 2022}, forwards: 1, env: map[string]string{"A": "1", "B": "2", "C": "2"}},
		"over env": {castra: castra, beside: "[env]\nC = \"3\"\nD = \"\"\n", ssh: SSH{Port: 22}, forwards: 1, env: map[string]string{"A": "1", "B": "2", "C": "3", "D": ""}},
		"over ssh": {castra: head + script + ssh, beside: "[ssh]\nuser = \"admin\"\nport = 24\nidentity = \"key\"\n", ssh: SSH{User: "admin", Port: 24, Identity: "setup/key"}, forwards: 1, env: map[string]string{}},
		"a part":   {castra: head + script + ssh, beside: "[ssh]\nidentity = \"../id\"\n", ssh: SSH{User: "root", Port: 2022, Identity: "id"}, forwards: 1, env: map[string]string{}},
		"a host":   {castra: head + script + ssh, beside: "ssh.host = \"vm.example.org\"\n", ssh: SSH{User: "root", Port: 2022, Host: "vm.example.org"}, env: map[string]string{}},
		"ipv6":     {castra: head + script, beside: "\xef\xbb\xbf[ssh]\r\nhost = \"2001:db8::1\"\r\n", ssh: SSH{Port: 22, Host: "2001:db8::1"}, env: map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Load(writeBeside(t, c.castra, c.beside, "setup/key", "id"))
			require.NoError(t, err)
			if c.ssh.Identity != "" {
				c.ssh.Identity = filepath.Join(p.Dir, c.ssh.Identity)
			}
			require.Equal(t, c.ssh, p.VMs[0].SSH)
			require.Equal(t, c.env, p.VMs[0].Bootstrap.Env)
			require.Len(t, p.VMs[0].Forwards, c.forwards)
			if c.forwards > 0 {
				require.Equal(t, c.ssh.Port, p.VMs[0].Forwards[0].GuestPort, "the forward leads to the port as merged")
			}
		})
	}
}

// TestBesideDefaultScripts: each replica has what stands beside its own script.
func TestBesideDefaultScripts(t *testing.T) {
	file := write(t, head+web+"count = 3\n", "bootstrap/web/run.sh", "bootstrap/web-1/run.sh")
	dir := filepath.Dir(file)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bootstrap/web", besideName), []byte("ssh.user = \"a\"\nenv.A = \"1\"\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bootstrap/web-1", besideName), []byte("ssh.user = \"b\"\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, besideName), []byte("nobody reads this"), 0o644))
	p, err := Load(file)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "a"}, []string{p.VMs[0].SSH.User, p.VMs[1].SSH.User, p.VMs[2].SSH.User})
	require.Empty(t, p.VMs[1].Bootstrap.Env)
	p.VMs[0].Bootstrap.Env["A"] = "x"
	require.Equal(t, "1", p.VMs[2].Bootstrap.Env["A"], "replicas share nothing")
}

func TestBesideFaults(t *testing.T) {
	beside := `[ssh]
User = "x"
host = "-oProxyCommand=x"
port = 0
identity = "none"
usr = "x"
[env]
CASTRA_VM = "x"
"A B" = "x"
N = 1
[vms]
name = "x"
`
	file := writeBeside(t, "version = 2\n[project]\nname = \"shop\"\n"+script+web, beside+"user = \"x\"\n", "bootstrap/web/run.sh")
	want := `castra.toml:1: version: it must be a string, and this is the integer 2
  next: write it in quotes: "2"
castra.toml:9: vms[1].name: the name web is taken by vms[0] on line 4
  next: give one of the two another name
setup/bootstrap.toml:2: ssh.User: unknown key
  next: keys are in lower case: write user
setup/bootstrap.toml:3: ssh.host: "-oProxyCommand=x" is no name or address of a host
  next: write a host name or an IP address, or leave it out to go by the forward
setup/bootstrap.toml:4: ssh.port: 0 is out of range
  next: write a whole number from 1 to 65535
setup/bootstrap.toml:5: ssh.identity: setup/none does not exist
  next: write a path that is absolute, or relative to the directory of bootstrap.toml
setup/bootstrap.toml:6: ssh.usr: unknown key
  next: did you mean user?
setup/bootstrap.toml:8: env.CASTRA_VM: names that begin with CASTRA_ are Castra's own
  next: give the variable another name
setup/bootstrap.toml:9: env."A B": it is no name of a variable
  next: write letters, digits and _, with no digit first
setup/bootstrap.toml:10: env.N: it must be a string, and this is an integer
  next: write a string in quotes
setup/bootstrap.toml:11: vms: unknown key
  next: known here: env, ssh
`
	require.Equal(t, want, faultsOf(t, file))

	file = writeBeside(t, head+strings.Replace(script, "web", "a", 1)+strings.Replace(script, "web", "b", 1), "user = \"x\"\n")
	require.Equal(t, "setup/bootstrap.toml:1: user: unknown key\n  next: it belongs under [ssh]\n", faultsOf(t, file), "said once for both")

	file = write(t, "version = 2\nproject.name = \"x\"\n"+web, "bootstrap/web/run.sh")
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "bootstrap/web", besideName), []byte("x = 1\ny = 1\n"), 0o644))
	require.Regexp(t, `^castra\.toml:1: (?s:.*)\nbootstrap/web/bootstrap\.toml:1: (?s:.*)\nbootstrap/web/bootstrap\.toml:2: `, faultsOf(t, file), "castra.toml first")

	for host, good := range map[string]bool{"a": true, "a-b.example.org": true, "10.0.0.1": true, "::1": true, "": false, "a b": false, "a_b": false, "x-": false, "fe80::1%eth0": false,
		`fe80::1%\u001b[m`: false, "a:22": false, "[::1]": false, "user@a": false, strings.Repeat("x", 254): false} {
		file := writeBeside(t, head+script, "ssh.host = \""+host+"\"\n")
		_, err := Load(file)
		require.Equal(t, good, err == nil, "%q: %v", host, err)
	}
}

// TestHostileBeside: a bootstrap.toml is held to what castra.toml is held to.
func TestHostileBeside(t *testing.T) {
	big := func(s string) string { return strings.Repeat(s, (sizeLimit-1000)/len(s)) }
	for name, c := range map[string]struct{ beside, want string }{
		"deep arrays": {"a = " + big("["), "nested more than 16 deep"},
		"deep tables": {"a = " + big("{a="), "nested more than 16 deep"},
		"dotted key":  {big("a.") + "a = 1", "more than 16 names"},
		"long key":    {big("x") + " = 1", "more than 128 bytes"},
		"faults":      {"[env]\n" + manyKeys(10_000), "more faults"},
		"unknown":     {manyKeys(10_000), "more faults"},
		"keys":        {"[env]\n" + manyKeys(100_000), "more than 16384 values"},
		"no end":      {"env.A = \"\"\"" + big("x\n"), "unexpected EOF"},
		"size":        {big("#") + strings.Repeat("#", 1001), "larger than 1024 KiB"},
		"syntax":      {"[ssh", "setup/bootstrap.toml:1"},
		"duplicate":   {"[env]\nA = \"1\"\nA = \"2\"\n", "setup/bootstrap.toml:3"},
		"encoding":    {"\xff\xfe", "setup/bootstrap.toml:1: encoding: UTF-16"},
		"bare cr":     {"[env]\r", "a CR without LF"},
		"nul":         {"[env]\nA = \"x\x00\"", "a NUL byte"},
		"escaped nul": {"[env]\nA = \"x\\u0000\"", "it holds a NUL character"},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeBeside(t, head+script, c.beside)
			requireCheap(t, file)
			got := faultsOf(t, file)
			require.Contains(t, got, c.want)
			require.Less(t, len(got), 50_000)
		})
	}
	for name, replace := range map[string]func(string) error{
		"directory": func(file string) error { return os.Mkdir(file, 0o755) },
		"fifo":      func(file string) error { return syscall.Mkfifo(file, 0o644) },
		"loop":      func(file string) error { return os.Symlink(file, file) },
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, head+script, "setup/run.sh")
			require.NoError(t, replace(filepath.Join(filepath.Dir(file), "setup", besideName)))
			require.Contains(t, faultsOf(t, file), "setup/bootstrap.toml: ")
		})
	}
}

// FuzzBootstrapToml feeds whole bootstrap.toml files: Load must end without a
// panic, and what it takes must be good.
func FuzzBootstrapToml(f *testing.F) {
	for _, seed := range []string{"", "[ssh]\nuser = \"u\"\nhost = \"h\"\nport = 22\n[env]\nA = \"1\"\n", "ssh = []\nenv = 1\n", "[env]\nCASTRA_X = \"\"\n", "[ssh]\nidentity = \"run.sh\"", "[["} {
		f.Add([]byte(seed))
	}
	file := write(f, head+script, "setup/run.sh")
	f.Fuzz(func(t *testing.T, data []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "setup", besideName), data, 0o644))
		p, err := Load(file)
		if err != nil {
			var all Faults
			require.ErrorAs(t, err, &all)
			require.LessOrEqual(t, len(all), maxFaults+1)
			return
		}
		vm := p.VMs[0]
		require.Regexp(t, `^([A-Za-z0-9:][A-Za-z0-9.:-]*)?$`, vm.SSH.Host)
		require.Regexp(t, `^([A-Za-z_][A-Za-z0-9_.-]*)?$`, vm.SSH.User)
		for name, value := range vm.Bootstrap.Env {
			require.Regexp(t, envPattern, name)
			require.NotContains(t, value, "\x00")
		}
		requireSnapshot(t, p)
	})
}
