package seed

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExtraKinds(t *testing.T) {
	for name, c := range map[string]struct{ text, contentType, want string }{
		"config":             {"#cloud-config\nruncmd: [ls]\n", "text/cloud-config", ""},
		"config alone":       {"#cloud-config", "text/cloud-config", ""},
		"config and more":    {"#cloud-config \t# ours\na: 1\n", "text/cloud-config", ""},
		"config in capitals": {"#Cloud-Config\na: 1\n", "text/cloud-config", ""},
		"archive":            {"#cloud-config-archive\n- a\n", "text/cloud-config-archive", ""},
		"boothook":           {"#cloud-boothook\n#!/bin/sh\n", "text/cloud-boothook", ""},
		"script":             {"#!/bin/sh\nls\n", "text/x-shellscript", ""},
		"template":           {"## template: jinja\n#cloud-config\n", "text/jinja2", ""},
		"BOM":                {"\xef\xbb\xbf#cloud-config\na: ä\n", "text/cloud-config", "#cloud-config\na: ä\n"},
		"CRLF":               {"#!/bin/sh\r\nls\r\nprintf '\r'\r\n", "text/x-shellscript", "#!/bin/sh\nls\nprintf '\r'\n"},
		"blank lines first":  {"\r\n \n#!/bin/sh\n", "text/x-shellscript", "#!/bin/sh\n"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, Check([]byte(c.text)))
			contentType, text, err := readExtra([]byte(c.text))
			require.NoError(t, err)
			require.Equal(t, c.contentType, contentType)
			if c.want == "" {
				c.want = c.text
			}
			require.Equal(t, c.want, string(text))
		})
	}
	require.NoError(t, Check(nil))
}

func TestExtraRefused(t *testing.T) {
	for name, c := range map[string]struct {
		text, want, hint string
		line             int
	}{
		"empty":             {"", "is empty", "#cloud-config", 0},
		"blank":             {"\xef\xbb\xbf\r\n\t\n", "is empty", "#cloud-config", 0},
		"no first line":     {"\nruncmd: [ls]\n", `"runcmd: [ls]" does not tell`, "#cloud-config", 2},
		"another word":      {"#cloud-configuration\n", "does not tell", "#cloud-config", 1},
		"space":             {"# cloud-config\n", "does not tell", "#cloud-config", 1},
		"lone CR":           {"#cloud-config\ra: 1\r", "does not tell", "#cloud-config", 1},
		"include":           {"#include http://127.0.0.1/x\n", "#include", "put what", 1},
		"include once":      {"#include-once\nhttp://127.0.0.1/x\n", "#include-once", "put what", 1},
		"handler":           {"#part-handler\n", "#part-handler", "#cloud-config", 1},
		"patch":             {"#cloud-config-jsonp\n[]", "#cloud-config-jsonp", "#cloud-config", 1},
		"upstart":           {"#upstart-job\n", "#upstart-job", "systemd", 1},
		"MIME":              {"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n", "MIME", "archive", 1},
		"MIME by its type":  {"Content-Type: multipart/mixed; boundary=x\n", "MIME", "archive", 1},
		"NUL":               {"#cloud-config\na: \x00\n", "NUL", "UTF-8", 2},
		"not UTF-8":         {"#cloud-config\na: \xe4\n", "0xe4", "UTF-8", 2},
		"UTF-16":            {"\xff\xfe#\x00", "UTF-16", "UTF-8", 0},
		"gzip":              {"\x1f\x8b\x08\x00", "gzip", "plain", 0},
		"too large":         {"#cloud-config\n" + strings.Repeat("#", MaxExtra), "1 MiB", "bootstrap", 0},
		"a long first line": {strings.Repeat("x", 500), `"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" does not`, "#cloud-config", 1},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check([]byte(c.text))
			var e *ExtraError
			require.ErrorAs(t, err, &e)
			require.ErrorContains(t, err, c.want)
			require.Contains(t, e.Hint(), c.hint)
			require.Equal(t, c.line, e.Line)
			if c.text == "" {
				return
			}
			s := exampleSeed(t, "root")
			s.Extra = []byte(c.text)
			path := filepath.Join(t.TempDir(), "seed.iso")
			err = s.Write(path)
			require.ErrorAs(t, err, &e)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), strings.Split(string(s.HostKey.Private), "\n")[1])
			require.NoFileExists(t, path)
		})
	}
}

type part struct{ contentType, name, merge, text string }

// parts reads a MIME message by Go's own means.
func parts(t *testing.T, message []byte) []part {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(message))
	require.NoError(t, err)
	require.Equal(t, "1.0", m.Header.Get("MIME-Version"))
	contentType, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/mixed", contentType)
	var all []part
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		data, err := io.ReadAll(p)
		require.NoError(t, err)
		switch encoding := p.Header.Get("Content-Transfer-Encoding"); encoding {
		case "base64":
			for line := range strings.Lines(string(data)) {
				require.LessOrEqual(t, len(strings.TrimSpace(line)), 76)
			}
			data, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(data)))
			require.NoError(t, err)
		default:
			require.Equal(t, "7bit", encoding)
		}
		contentType, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		require.NoError(t, err)
		require.Equal(t, "utf-8", params["charset"])
		all = append(all, part{contentType, p.FileName(), p.Header.Get("Merge-Type"), string(data)})
	}
}

func TestMultipart(t *testing.T) {
	hostile := "#!/bin/sh\nhostname: evil\n--castra-user-data\nssh_keys:\n  ed25519_private: |\n    evil\n--castra-user-data--\n"
	for _, user := range []string{"root", "castra"} {
		for name, extra := range map[string]string{
			"text/cloud-config":  "#cloud-config\nruncmd:\n  - echo ä\n",
			"text/x-shellscript": hostile,
			"text/jinja2":        "## template: jinja\n#cloud-config\n# " + strings.Repeat("x", 10000),
		} {
			s := exampleSeed(t, user)
			without := string(s.UserData())
			s.Extra = []byte(extra)
			logins := "#cloud-config\n" + string(s.logins())
			require.Equal(t, []part{
				{"text/cloud-config", "castra-logins", adding, logins},
				{name, "project", adding, extra},
				{"text/cloud-config", "castra-logins-again", adding, logins},
				{"text/cloud-config", "castra-settings", replacing, "#cloud-config\n" + string(s.settings())},
			}, parts(t, s.UserData()))
			for line := range strings.Lines(without) {
				require.Contains(t, string(s.UserData()), "\n"+line, "our lines are there as they are")
			}
			require.Equal(t, s.UserData(), s.UserData(), "equal seeds give equal bytes")
			s.Extra = []byte{}
			require.Equal(t, without, string(s.UserData()))
			s.Extra = []byte("nonsense")
			require.Equal(t, without, string(s.UserData()))
		}
	}
}

// The whole of a large Extra is in the image.
func TestWriteExtra(t *testing.T) {
	s := exampleSeed(t, "castra")
	s.Extra = []byte("#cloud-config\n# " + strings.Repeat("x", MaxExtra-16))
	path := filepath.Join(t.TempDir(), "seed.iso")
	require.NoError(t, s.Write(path))
	image, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Contains(image, s.UserData()))
}

// The small guest has no MIME and no YAML parser: it reads lines, by a shell
// script. Its functions are run here on directories of the test's own.
func TestSmallGuestReads(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh")
	}
	script, err := os.ReadFile("../image/small/root/etc/castra/seed")
	require.NoError(t, err)
	for _, user := range []string{"root", "dev"} {
		t.Run(user, func(t *testing.T) {
			s := exampleSeed(t, user)
			s.Extra = []byte("#cloud-config\nhostname: evil\nusers:\n  - name: evil\n    ssh_authorized_keys:\n      - " + s.HostKey.Public + "\n")
			dir := t.TempDir()
			here := strings.NewReplacer("/run/", dir+"/run/", "/root", dir+"/root", "/etc/", dir+"/etc/", "/home/", dir+"/home/").Replace(string(script))
			require.NotRegexp(t, regexp.MustCompile(`(^|[^a-z0-9])/(run|root|etc|home)`), strings.ReplaceAll(here, dir, "x"), "nothing of this computer is touched")
			for _, sub := range []string{"run/seed", "root/.ssh", "etc", "home"} {
				require.NoError(t, os.MkdirAll(filepath.Join(dir, sub), 0o700))
			}
			write := func(name, text string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
			}
			write("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
			write("run/seed/meta-data", string(s.MetaData()))
			write("run/seed/user-data", string(s.UserData()))
			cmd := exec.Command(sh, "-euc", here+"\numount() { :; }\nchown() { :; }\nread_seed\necho \"$hostname\"\n")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Equal(t, "web-0\n", string(out))
			key, err := os.ReadFile(filepath.Join(dir, "run", "host_key.pem"))
			require.NoError(t, err)
			require.Equal(t, string(s.HostKey.Private), string(key))
			home := map[string]string{"root": "root", "dev": "home/dev"}[user]
			keys, err := os.ReadFile(filepath.Join(dir, home, ".ssh", "authorized_keys"))
			require.NoError(t, err)
			for line := range strings.Lines(string(keys)) {
				require.Equal(t, bareKey(s.AuthorizedKeys[0])+"\n", line)
			}
			require.NotEmpty(t, keys)
			require.NoDirExists(t, filepath.Join(dir, "home", "evil"))
		})
	}
}
