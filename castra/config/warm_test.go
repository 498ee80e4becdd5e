package config

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWarm: of the project's word and the VM's, false wins.
func TestWarm(t *testing.T) {
	for _, c := range []struct {
		project, vm string
		want        bool
	}{
		{"", "", true},
		{"", "true", true},
		{"", "false", false},
		{"true", "", true},
		{"true", "true", true},
		{"true", "false", false},
		{"false", "", false},
		{"false", "true", false},
		{"false", "false", false},
	} {
		t.Run(fmt.Sprintf("project %q, VM %q", c.project, c.vm), func(t *testing.T) {
			line := func(value string) string {
				if value == "" {
					return ""
				}
				return "warm = " + value + "\n"
			}
			p := load(t, head+line(c.project)+web+"count = 2\n"+line(c.vm)+"[[vms.instances]]\nid = \"web-1\"\ncpus = 1\n[[vms]]\nname = \"db\"\n")
			require.Equal(t, c.project != "false", p.Warm)
			require.Equal(t, c.want, p.VMs[0].Warm)
			require.Equal(t, c.want, p.VMs[1].Warm, "an instance has it from its role")
			require.Equal(t, p.Warm, p.VMs[2].Warm, "the other role is the project's")
			require.Empty(t, p.Warnings)
			requireSnapshot(t, p)
		})
	}
}

// TestWarmWithoutAWord: a snapshot of before there was the key, and a file of
// schema 0.1, are warm.
func TestWarmWithoutAWord(t *testing.T) {
	file := write(t, "version = \"0.1\"\n[project]\nname = \"shop\"\n"+web)
	p, err := LoadSnapshot(file, file)
	require.NoError(t, err)
	require.True(t, p.Warm)
	require.True(t, p.VMs[0].Warm)
}

func TestWarmFaults(t *testing.T) {
	const own = head + "warm = %[1]s\n" + web
	const vms = head + web + "warm = %[1]s\n"
	for _, c := range []struct{ source, value, want string }{
		{own, `"false"`, ":4: project.warm: it must be a boolean, and this is the string \"false\"\n  next: write true or false, without quotes\n"},
		{own, "1", ":4: project.warm: it must be a boolean, and this is the integer 1\n  next: write true or false\n"},
		{own, "[]", ":4: project.warm: it must be a boolean, and this is an array\n  next: write true or false\n"},
		{vms, "0", ":6: vms[0].warm: it must be a boolean, and this is the integer 0\n  next: write true or false\n"},
		{vms, `{ disk = true }`, ":6: vms[0].warm: it must be a boolean, and this is a table\n  next: write true or false\n"},
		{head + web + "Warm = %s\n", "false", ":6: vms[0].Warm: unknown key\n  next: keys are in lower case: write warm\n"},
		{head + web + "wram = %s\n", "false", ":6: vms[0].wram: unknown key\n  next: did you mean warm?\n"},
		{head + web + "[[vms.instances]]\nid = \"web-0\"\nwarm = %s\n", "false", ":8: vms[0].instances[0].warm: unknown key\n  next: it belongs under [project] or [[vms]]\n"},
		{"warm = %s\n" + head + web, "false", ":1: warm: unknown key\n  next: it belongs under [project] or [[vms]]\n"},
	} {
		require.Equal(t, FileName+c.want, refused(t, fmt.Sprintf(c.source, c.value)))
	}
}
