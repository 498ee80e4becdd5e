package warm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The script is run by every shell that this computer has, on files of the test's own.
func TestRename(t *testing.T) {
	for _, shell := range [][]string{{"dash"}, {"bash", "--posix"}, {"busybox", "sh"}, {"sh"}} {
		t.Run(shell[0], func(t *testing.T) {
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skip("no " + shell[0])
			}
			etc := t.TempDir()
			for name, text := range map[string]string{
				"hostname": "web-1\n", "machine-id": "0123\n",
				"hosts": "127.0.0.1 localhost\n127.0.1.1\tweb-1.lan web-1\n10.0.0.1 web-10 my-web-1 # web-1\n\n::1 localhost",
			} {
				require.NoError(t, os.WriteFile(filepath.Join(etc, name), []byte(text), 0o600))
			}
			script := strings.ReplaceAll(rename, "/etc/", etc+"/")
			args := append(shell[1:], "-c", script, "sh", "true", "web-1", "web-2", "4567")
			out, err := exec.CommandContext(t.Context(), shell[0], args...).CombinedOutput()
			require.NoError(t, err, string(out))
			require.Empty(t, string(out))
			for name, want := range map[string]string{
				"hostname": "web-2\n", "machine-id": "4567\n",
				"hosts": "127.0.0.1 localhost\n127.0.1.1\tweb-2.lan web-2\n10.0.0.1 web-10 my-web-1 # web-2\n\n::1 localhost\n",
			} {
				got, err := os.ReadFile(filepath.Join(etc, name))
				require.NoError(t, err)
				require.Equal(t, want, string(got), name)
			}
			args[len(args)-4] = "false"
			require.Error(t, exec.CommandContext(t.Context(), shell[0], args...).Run(), "the waking program failed")
		})
	}
}
