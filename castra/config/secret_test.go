package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// G1: what is wrong with a variable is told without its value, whether the loader finds it or the TOML library,
// which quotes what it stumbles over.
func TestFaultsHoldNoEnvValues(t *testing.T) {
	wrong := []string{
		`TOKEN = hunter2secret`, `TOKEN = "hunter2\qsecret"`, "TOKEN = \"hunter2secret\nX = 1", `TOKEN = 731173117`, `TOKEN = 7311.7311`, `TOKEN = true`,
		`TOKEN = 12hunter2secret`, `TOKEN = 731173117311731173117311`, `TOKEN = 7311.7311e999999`, `TOKEN hunter2secret`, `TOKEN = [hunter2secret]`,
		`TOKEN = {hunter2secret}`, `TOKEN = { x = hunter2secret }`, `TOKEN = 0xhunter2secret`, `TOKEN = 7311-73-11`, `TOKEN = 1979-05-27Thunter2secret`,
		`TOKEN = "\u12hunter2secret"`, `TOKEN = +hunter2secret`, `TOKEN = inhunter2secret`, `TOKEN = """hunter2secret`, `TOKEN = 7311_7311_`,
		`TOKEN = 07311731173`, `TOKEN = 73117311.`, "TOKEN = \"\"\"\nhunter2secret \\u12hunter2secret\n\"\"\"", "TOKEN = \"hunter2secret\x01\"",
		"TOKEN = 'a'\nTOKEN = 'hunter2secret'", `TOKEN.x = "hunter2secret"`, `TOKEN = ["hunter2secret"]`, `"A B" = "hunter2secret"`, `CASTRA_X = "hunter2secret"`,
		`TOKEN = "hunter2secret\u0000"`, `TOKEN = "hunter2secret`,
	}
	for _, table := range []string{"[vms.bootstrap.env]\n", "[bootstrap.env]\n", "[vms.bootstrap.ENV]\n", "[vms.bootstrap.\"env\"]\n", "[env]\n"} {
		for _, line := range wrong {
			requireSecret(t, write(t, head+web+table+line+"\n"), table+line)
		}
	}
	for _, line := range wrong {
		requireSecret(t, writeBeside(t, head+script, "[env]\n"+line+"\n"), line)
	}
	for _, line := range []string{
		`env = "TOKEN=hunter2secret"`, `env = { TOKEN = hunter2secret }`, `env.TOKEN = hunter2secret`, `env = 731173117`, `env = ["TOKEN=hunter2secret"]`,
		"env = {\n TOKEN = hunter2secret,\n}", "env = [{TOKEN = 'hunter2secret'}]", `env."TOKEN" = 731173117`, `"env" = { TOKEN = 731173117 }`, "Env = 731173117",
	} {
		requireSecret(t, write(t, head+web+"[vms.bootstrap]\n"+line+"\n"), line)
	}
}

// requireSecret: the file is refused, and not four letters of its canaries are told.
func requireSecret(t *testing.T, file, source string) {
	t.Helper()
	told := faultsOf(t, file)
	for _, piece := range []string{"hunt", "secr", "7311"} {
		require.NotContains(t, told, piece, source)
	}
}

// What is no secret is still quoted: it is what one looks for.
func TestOtherFaultsQuoteTheText(t *testing.T) {
	require.Contains(t, refused(t, head+web+"count = two\n"), `"two"`)
	require.Contains(t, refused(t, head+web+"[vms.bootstrap.env]\nA = \"x\"\n[[vms]]\ncount = two\n"), `"two"`)
	require.Contains(t, refused(t, head+web+"count = 12345678901234567890\n"), "12345678901234567890")
	require.Contains(t, refused(t, head+web+"[vms.bootstrap.env]\nA = \"x\"\nA = \"y\"\n"), "already been defined")
	require.Contains(t, faultsOf(t, writeBeside(t, head+script, "[ssh]\nport = x22\n")), `"x"`)
	require.Contains(t, refused(t, head+web+"[vms.bootstrap.env]\nA = \"x\n"), "strings cannot contain newlines")
}
