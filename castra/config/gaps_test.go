package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/config"
)

const (
	gapHead = "version = \"0.2\"\n[project]\nname = \"x\"\n"
	gapWeb  = "[[vms]]\nname = \"web\"\n"
)

// TestGaps are files that were taken, or refused for a reason of Castra's own
// making.
func TestGaps(t *testing.T) {
	state := func(dir string) string {
		return "version = \"0.2\"\n[project]\nname = \"x\"\nstate_dir = \"" + dir + "\"\n" + gapWeb
	}
	for name, c := range map[string]struct {
		source, want string // want: part of a fault; "" for none at all
		never        string // no fault may say it
	}{
		"no VM in an array":           {source: "version = \"0.2\"\nvms = []\n[project]\nname = \"x\"\n", want: "vms: there is no VM"},
		"overlay is castra.toml":      {source: gapHead + gapWeb + "overlay = \"castra.toml\"\n", want: "vms[0].overlay: "},
		"overlay is the kernel":       {source: gapHead + gapWeb + "kernel = \"file\"\noverlay = \"file\"\n", want: "vms[0].overlay: "},
		"overlay is the script":       {source: gapHead + gapWeb + "overlay = \"file\"\nbootstrap.script = \"file\"\n", want: "vms[0].overlay: "},
		"overlay is a directory":      {source: gapHead + gapWeb + "overlay = \"dir\"\n", want: "vms[0].overlay: "},
		"overlay over state":          {source: gapHead + gapWeb + "overlay = \".castra/metadata/session.json\"\n", want: "vms[0].overlay: "},
		"one overlay, two spellings":  {source: state(".castra") + "overlay = \".castra/a.qcow2\"\n[[vms]]\nname = \"db\"\noverlay = \"link/.castra/a.qcow2\"\n", want: "vms[1].overlay: "},
		"base image in the workspace": {source: state(".castra") + "base_image = \".castra/a.qcow2\"\noverlay = \".castra/a.qcow2\"\n", want: "is the base image of"},
		"state_dir is a file":         {source: state("file"), want: "project.state_dir: "},
		"state_dir of the system":     {source: state("/etc"), want: "project.state_dir: "},
		"variable in a path":          {source: state("$HOME/x"), want: "project.state_dir: "},
		"workflows misspelt":          {source: gapHead + gapWeb + "[workflows]\nint = 1\n", want: "workflows.int: unknown key"},
		"faulty address, no conflict": {source: gapHead + gapWeb + "port_forwards = [{host = 80, guest = 1, host_ip = \"::1\"}, {host = 80, guest = 2}]\n", want: "host_ip: ", never: "is taken"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, config.FileName)
			require.NoError(t, os.WriteFile(file, []byte(c.source), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("#!/bin/sh\n"), 0o600))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "dir"), 0o700))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, ".castra"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, ".castra", "a.qcow2"), nil, 0o600))
			require.NoError(t, os.Symlink(".", filepath.Join(dir, "link")))
			_, err := config.Load(file)
			require.ErrorContains(t, err, c.want)
			if c.never != "" {
				require.NotContains(t, err.Error(), c.never)
			}
		})
	}
}

// TestVizierWarns per product.md, section 2.
func TestVizierWarns(t *testing.T) {
	file := filepath.Join(t.TempDir(), config.FileName)
	require.NoError(t, os.WriteFile(file, []byte(gapHead+gapWeb+"[project.features]\nenable_vm_vizier = true\n"), 0o600))
	p, err := config.Load(file)
	require.NoError(t, err)
	require.Len(t, p.Warnings, 1)
}

// TestHelpNamesThePlace of a key that stands in the wrong table.
func TestHelpNamesThePlace(t *testing.T) {
	for source, want := range map[string]string{
		gapHead + "cpus = 2\n" + gapWeb:                "[[vms]]",
		gapHead + gapWeb + "[vms.ssh]\nmemory = 512\n": "[[vms]]",
		gapHead + gapWeb + "cpu = 3\n":                 "cpus",
	} {
		file := filepath.Join(t.TempDir(), config.FileName)
		require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
		_, err := config.Load(file)
		var faults config.Faults
		require.ErrorAs(t, err, &faults)
		require.Contains(t, faults[0].Help, want)
		require.NotContains(t, strings.Split(faults[0].Help, ", "), "managed_image", "a key that is refused is no advice")
	}
}

// TestGapPlaces: no fault may send anybody to a table that does not take the key.
func TestGapPlaces(t *testing.T) {
	for key, table := range map[string]string{
		"sigterm_wait_secs": "[lifecycle]", "kernel": "[[vms]]", "host_ip": "[[vms.port_forwards]]", "identity": "[vms.ssh]",
		"verify_path": "[vms.bootstrap]", "state_dir": "[project]",
	} {
		file := filepath.Join(t.TempDir(), config.FileName)
		source := gapHead + gapWeb + "[nowhere]\n" + key + " = 1\n"
		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(source, "[nowhere]", "[workflows]", 1)), 0o600))
		_, err := config.Load(file)
		var faults config.Faults
		require.ErrorAs(t, err, &faults)
		require.Equal(t, "it belongs under "+table, faults[0].Help)

		source = gapHead + gapWeb + table + "\nname = \"x\"\n" + key + " = 1\n"
		if table == "[project]" {
			source = gapHead + key + " = 1\n" + gapWeb
		}
		require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
		if _, err = config.Load(file); err != nil {
			require.NotContains(t, err.Error(), key+": unknown key")
		}
	}
}

func TestBootstrapKeysWithoutAScript(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, config.FileName)
	require.NoError(t, os.WriteFile(file, []byte("version = \"0.2\"\nproject.name = \"x\"\n[[vms]]\nname = \"web\"\nimage = \"small\"\n[vms.bootstrap]\nverify_command = \"true\"\nverify_path = \"/x\"\n"), 0o600))
	_, err := config.Load(file)
	var found config.Faults
	require.ErrorAs(t, err, &found)
	require.Len(t, found, 2)
	require.Equal(t, "vms[0].bootstrap.verify_command", found[0].Key)
	require.Equal(t, 7, found[0].Line)

	require.NoError(t, os.MkdirAll(filepath.Join(dir, "bootstrap", "web"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bootstrap", "web", "run.sh"), []byte("true\n"), 0o600))
	_, err = config.Load(file)
	require.NoError(t, err)
}
