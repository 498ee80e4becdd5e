package castra

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// optionsProject is a directory with a castra.toml, a home that is not there
// yet, and no variable of Castra's set.
func optionsProject(t *testing.T) Options {
	t.Helper()
	for _, name := range []string{"CONFIG", "HOME", "ACCEL", "QCOW", "FORCE", "SYNTHETIC", "WARM", "TEMPLATES_MAX"} {
		t.Setenv("CASTRA_"+name, "")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "castra.toml"), []byte("version = \"0.2\"\n[project]\nname = \"shop\"\n[[vms]]\nname = \"web\"\n"), 0o600))
	return Options{Dir: dir, Home: filepath.Join(dir, "home")}
}

func TestOptionsOfNoVariables(t *testing.T) {
	optionsProject(t)
	require.Equal(t, Options{}, Environment(), "castratest takes the zero value for not given")
}

func TestOptionsWarm(t *testing.T) {
	o := optionsProject(t)
	for value, want := range map[string]string{"": "", "1": "", "0": "off", "disk": "disk"} {
		t.Setenv("CASTRA_WARM", value)
		require.Equal(t, want, Environment().Warm, "%q", value)
		o.Warm = want
		p, err := Open(o)
		require.NoError(t, err)
		require.Equal(t, want, p.options.Warm)
	}
	for _, value := range []string{"off", "yes", "true", "false", "2", "ram", "Disk", " 1", "CASTRA_WARM=0"} {
		t.Setenv("CASTRA_WARM", value)
		o.Warm = Environment().Warm
		requireUsage(t, o, "CASTRA_WARM \""+value+"\" is none of 1, 0, disk", "write CASTRA_WARM=1 for templates of memory and disk, disk for those of disks alone, or 0 for none; unset, it is 1")
	}
	for _, value := range []string{"1", "0", "on", "Off"} {
		o.Warm = value
		requireUsage(t, o, "Options.Warm \""+value+"\" is none of disk, off", "leave it empty for templates of memory and disk")
	}
}

func TestOptionsTemplatesMax(t *testing.T) {
	o := optionsProject(t)
	const mib = int64(1) << 20
	for value, want := range map[string]int64{
		"": 0, "10 GiB": 10 << 30, "512 MiB": 512 * mib, "512": 512 * mib, "1.5g": 1536 * mib, "64": 64 * mib, "16384 GiB": 16 << 40,
	} {
		t.Setenv("CASTRA_TEMPLATES_MAX", value)
		got := Environment()
		require.Equal(t, want, got.TemplatesMax, "%q", value)
		o.TemplatesMax, o.templatesMax = got.TemplatesMax, got.templatesMax
		p, err := Open(o)
		require.NoError(t, err, "%q", value)
		require.Equal(t, want, p.options.TemplatesMax)
	}
	for _, value := range []string{"0", "0 GiB", "63", "-1", "ten", "10 GiBs", "1 TiB", "1.00001 GiB", "16385 GiB", " ", "99999999999999999999"} {
		t.Setenv("CASTRA_TEMPLATES_MAX", value)
		got := Environment()
		o.TemplatesMax, o.templatesMax = got.TemplatesMax, got.templatesMax
		requireUsage(t, o, "CASTRA_TEMPLATES_MAX \""+value+"\" is no size of whole MiB, from 64 MiB to 16 TiB", `write "10 GiB", "512 MiB" or 512 (MiB); to keep no templates, set CASTRA_WARM=0`)
	}
	o.TemplatesMax = 1
	_, err := Open(o)
	require.NoError(t, err, "what Go code sets goes before the variable")
	o.TemplatesMax, o.templatesMax = -5, ""
	requireUsage(t, o, "Options.TemplatesMax -5 is negative", `write bytes, or 0 for 10 GiB; to keep no templates, set Options.Warm to "off"`)
}

// TestOptionsThroughATarget: a verb refuses the variable before it does anything.
func TestOptionsThroughATarget(t *testing.T) {
	o := optionsProject(t)
	t.Chdir(o.Dir)
	t.Setenv("CASTRA_HOME", o.Home)
	t.Setenv("CASTRA_WARM", "maybe")
	err := Up(t.Context())
	require.EqualError(t, err, "CASTRA_WARM \"maybe\" is none of 1, 0, disk\n  next: write CASTRA_WARM=1 for templates of memory and disk, disk for those of disks alone, or 0 for none; unset, it is 1")
	require.Equal(t, 64, exitStatus(err))
	require.NoDirExists(t, o.Home)
}

// TestOptionsWithoutAProject: what ends VMs of other workspaces asks for no
// template, and says first that there is no castra.toml.
func TestOptionsWithoutAProject(t *testing.T) {
	o := optionsProject(t)
	o.Dir, o.Warm = t.TempDir(), "maybe"
	ws, err := OpenWorkspaces(o, Selection{}, nil)
	require.NoError(t, err)
	require.Empty(t, ws.Projects)
}

func requireUsage(t *testing.T, o Options, text, advice string) {
	t.Helper()
	_, err := Open(o)
	require.EqualError(t, err, text)
	require.Equal(t, exitUsage, exitStatus(err))
	require.Equal(t, advice, hint(err))
}
