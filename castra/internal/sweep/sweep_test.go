package sweep

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const tracedEnv = "CASTRA_SWEEP_TRACED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(tracedEnv); dir != "" {
		os.Exit(traced(dir))
	}
	os.Exit(m.Run())
}

// traced is the program of these tests: it writes a file beside and renames it, in
// another thread than it began in, and starts a process.
func traced(dir string) int {
	done := make(chan error)
	go func() {
		done <- func() error {
			half, name := filepath.Join(dir, ".half"), filepath.Join(dir, "whole")
			if err := os.WriteFile(half, []byte("12345678"), 0o600); err != nil {
				return err
			}
			if err := os.Rename(half, name); err != nil {
				return err
			}
			fmt.Println("renamed")
			cmd := exec.Command("/bin/sh", "-c", "exec touch "+filepath.Join(dir, "touched"))
			if err := cmd.Run(); err != nil {
				return err
			}
			return os.Remove(name)
		}()
	}()
	if err := <-done; err != nil {
		fmt.Println(err)
		return 3
	}
	return 0
}

// run runs traced, and gives what it said.
func run(t *testing.T, dir string, plan Plan) (Result, string) {
	t.Helper()
	if !Supported {
		t.Skip("there is no tracer for this computer")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer out.Close()
	r, err := Run(Command{Path: self, Args: []string{"traced"}, Env: append(os.Environ(), tracedEnv+"="+dir), Output: out}, plan)
	require.NoError(t, err)
	said, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	return r, string(said)
}

func TestEachCallIsCounted(t *testing.T) {
	dir := t.TempDir()
	r, said := run(t, dir, Plan{})
	require.Equal(t, "renamed\n", said)
	require.True(t, r.Status.Exited())
	var told []string
	for _, c := range r.Calls {
		require.True(t, c.Returned, c)
		told = append(told, strings.ReplaceAll(c.String(), dir, ""))
	}
	require.Equal(t, []string{"openat /.half", "write /.half", "renameat /.half /whole", "clone", "clone", "unlinkat /whole"}, told,
		"the first process is one by which os tells whether there are pidfds")
}

func TestActs(t *testing.T) {
	const eight = "12345678"
	for _, c := range []struct {
		plan Plan
		left map[string]string
		says string
	}{
		{Plan{1, KillBefore, 0}, map[string]string{}, ""},
		{Plan{1, KillAfter, 0}, map[string]string{".half": ""}, ""},
		{Plan{2, KillBefore, 0}, map[string]string{".half": ""}, ""},
		{Plan{2, KillAmid, 0}, map[string]string{".half": "1234"}, ""},
		{Plan{2, KillAfter, 0}, map[string]string{".half": eight}, ""},
		{Plan{3, KillBefore, 0}, map[string]string{".half": eight}, ""},
		{Plan{3, KillAfter, 0}, map[string]string{"whole": eight}, ""},
		{Plan{4, KillBefore, 0}, map[string]string{"whole": eight}, "renamed\n"},
		{Plan{5, KillBefore, 0}, map[string]string{"whole": eight}, "renamed\n"},
		{Plan{5, KillAmid, 0}, map[string]string{"whole": eight, "touched": ""}, "renamed\n"},
		{Plan{5, KillAfter, 0}, map[string]string{"whole": eight, "touched": ""}, "renamed\n"},
		{Plan{6, KillAfter, 0}, map[string]string{"touched": ""}, "renamed\n"},
		{Plan{1, Fail, syscall.EACCES}, map[string]string{}, "open DIR/.half: permission denied\n"},
		{Plan{2, FailOn, syscall.ENOSPC}, map[string]string{".half": ""}, "write DIR/.half: no space left on device\n"},
		{Plan{3, Fail, syscall.EIO}, map[string]string{".half": eight}, "rename DIR/.half DIR/whole: input/output error\n"},
		{Plan{9, KillBefore, 0}, map[string]string{"touched": ""}, "renamed\n"},
	} {
		t.Run(fmt.Sprintf("%s %d", c.plan.Do, c.plan.At), func(t *testing.T) {
			dir := t.TempDir()
			r, said := run(t, dir, c.plan)
			require.Equal(t, c.says, strings.ReplaceAll(said, dir, "DIR"))
			left := map[string]string{}
			seen := func() bool {
				entries, err := os.ReadDir(dir)
				require.NoError(t, err)
				for _, e := range entries {
					b, err := os.ReadFile(filepath.Join(dir, e.Name()))
					require.NoError(t, err)
					left[e.Name()] = string(b)
				}
				return len(left) >= len(c.left)
			}
			require.Eventually(t, seen, bound, poll, "a process that it has started lives on")
			require.Equal(t, c.left, left)
			require.Equal(t, c.plan.At < 9, r.Struck != nil)
			if strings.HasPrefix(string(c.plan.Do), "kill") && r.Struck != nil {
				require.Equal(t, syscall.SIGKILL, r.Status.Signal())
			}
		})
	}
}
