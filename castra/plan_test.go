package castra

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// normal replaces what differs from run to run.
func (w *world) normal(text string) string {
	p := w.open()
	for _, s := range [][2]string{
		{p.root, "<root>"}, {p.id, "<id>"}, {w.home, "<home>"}, {w.fakes, "<bin>"}, {w.dir, "<project>"},
		{uuid(p.root, "web-0"), "<uuid of web-0>"}, {uuid(p.root, "web-1"), "<uuid of web-1>"}, {uuid(p.root, "db-0"), "<uuid of db-0>"},
	} {
		text = strings.ReplaceAll(text, s[0], s[1])
	}
	return text
}

func TestPlanGolden(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the golden files are of Linux on amd64")
	}
	w := newWorld(t, patient,
		vm("web", "count = 2", "[[vms.port_forwards]]", "guest = 80"),
		vm("db", `overlay = ".castra/disks/db.qcow2"`, `kernel = "base.qcow2"`, `append = "console=ttyS0 quiet"`,
			"[[vms.port_forwards]]", "host = 5432", "guest = 5432", "[vms.bootstrap]", `mode = "skip"`))
	w.write("bootstrap/web/run.sh", "#!/bin/sh\n")
	plan, err := w.open().Plan(t.Context(), UpOptions{})
	require.NoError(t, err)
	var text bytes.Buffer
	require.NoError(t, plan.write(&text))
	golden(t, "plan.golden", w.normal(text.String()))
	asJSON, err := json.MarshalIndent(plan, "", "  ")
	require.NoError(t, err)
	golden(t, "plan.json.golden", w.normal(string(asJSON))+"\n")
	require.NoDirExists(t, w.home, "a plan touches nothing")
}

// What plan prints is what up runs, before and after.
func TestPlanIsWhatUpRuns(t *testing.T) {
	w := newWorld(t, patient, vm("web", "count = 2", "[[vms.port_forwards]]", "guest = 80"), vm("db"))
	before, err := w.open().Plan(t.Context(), UpOptions{})
	require.NoError(t, err)
	w.up()
	for _, planned := range before.VMs {
		pid := w.status(planned.Name).PID
		argv := strings.Split(strings.TrimSuffix(string(mustRead(t, fmt.Sprintf("/proc/%d/cmdline", pid))), "\x00"), "\x00")
		require.Equal(t, planned.Command, argv)
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		require.NoError(t, err)
		require.Equal(t, planned.Dir, cwd)
		require.FileExists(t, planned.Overlay)
		require.FileExists(t, planned.Seed)
		require.Equal(t, planned.BaseImage, w.session().VMs[planned.Name].Overlay.BaseImage)
	}
	state := snapshot(t, w.home)
	again, err := w.open().Plan(t.Context(), UpOptions{})
	require.NoError(t, err)
	require.Equal(t, before, again)
	require.Equal(t, state, snapshot(t, w.home))
	w.down()
	w.cleanSlate()
}

// The command line can be pasted into a shell, whatever the paths hold.
func TestPlanIsQuoted(t *testing.T) {
	w := newWorld(t, patient)
	odd := filepath.Join(w.dir, "it's, a=b $HOME")
	require.NoError(t, os.Mkdir(odd, 0o700))
	w.dir = odd
	w.base = filepath.Join(odd, "base.qcow2")
	w.write("base.qcow2", string(mustRead(t, filepath.Join(filepath.Dir(odd), "base.qcow2"))))
	w.write("castra.toml", "version = \"0.2\"\n[project]\nname = \"scratch\"\nstate_dir = \"s,1\"\n"+vm("web"))
	plan, err := w.open().Plan(t.Context(), UpOptions{})
	require.NoError(t, err)
	var text bytes.Buffer
	require.NoError(t, plan.write(&text))
	require.Contains(t, text.String(), `cd '`+strings.ReplaceAll(filepath.Join(odd, "s,1"), "'", `'\''`)+`' && `)
	require.Contains(t, text.String(), ` 3>>'`+strings.ReplaceAll(filepath.Join(odd, "s,1", "logs", "web-0-serial.log"), "'", `'\''`)+"'\n")
	w.up()
	require.Equal(t, "running", w.status("web-0").State)
	w.down()
	w.cleanSlate()
}
