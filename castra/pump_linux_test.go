package castra

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pumps are the processes that write the logs of this workspace.
func (w *world) pumps() int {
	count := 0
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(w, err)
	for _, path := range all {
		cmdline, _ := os.ReadFile(path)
		if strings.Contains(string(cmdline), "\x00castra-log\x00"+w.layout().Logs()+"/") {
			count++
		}
	}
	return count
}

// F-1: what writes the logs ends with QEMU, however that ends.
func TestNothingIsLeftThatWritesLogs(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	require.GreaterOrEqual(t, w.pumps(), 2)
	w.down()
	require.Eventually(t, func() bool { return w.pumps() == 0 }, 30*time.Second, 5*time.Millisecond)
	w.up()
	require.NoError(t, syscall.Kill(w.status("web-0").PID, syscall.SIGKILL))
	require.Eventually(t, func() bool { return w.pumps() == 0 }, 30*time.Second, 5*time.Millisecond)
	w.up()
	w.down()
	w.cleanSlate()
}
