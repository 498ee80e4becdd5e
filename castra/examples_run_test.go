package castra_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qemutest"
)

const exampleTOML = `version = "0.2"
[project]
name = "shop"
[[vms]]
name = "web"
base_image = "base.qcow2"
cpus = 1
memory = "64 MiB"
port_forwards = [{ guest = 80 }]
`

// The examples do what they show, but for those that need a magefile, or would
// write to a guest's directories: the fake guest's are this computer's.
func TestExamplesRun(t *testing.T) {
	for name, c := range map[string]struct {
		example func()
		prints  string // a pattern
	}{
		"Open":           {ExampleOpen, `^web-0 running \[.+\]\nLinux .+\n$`},
		"With":           {ExampleWith, `^\d+\..+\n$`},
		"SessionAddress": {ExampleSession_Address, `^200 OK\n$`},
		"ProjectWithin":  {ExampleProject_Within, `web-0`},
		"OpenWorkspaces": {ExampleOpenWorkspaces, `^$`},
	} {
		t.Run(name, func(t *testing.T) {
			fakes, dir := qemutest.Install(t), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "castra.toml"), []byte(exampleTOML), 0o600))
			qemutest.WriteImage(t, filepath.Join(dir, "base.qcow2"), 1<<20)
			t.Chdir(dir)
			t.Setenv("PATH", fakes+string(os.PathListSeparator)+os.Getenv("PATH"))
			t.Setenv("CASTRA_HOME", filepath.Join(t.TempDir(), "home"))
			t.Setenv("CASTRA_ACCEL", "tcg")
			t.Setenv("HOME", t.TempDir())
			require.Regexp(t, c.prints, printed(t, c.example))
			require.Empty(t, qemutest.Running(t, fakes))
		})
	}
}

// printed is what f writes to standard output.
func printed(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	require.NoError(t, err)
	defer file.Close()
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	os.Stdout = file
	f()
	_, err = file.Seek(0, io.SeekStart)
	require.NoError(t, err)
	text, err := io.ReadAll(file)
	require.NoError(t, err)
	return string(text)
}
