package castra

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Faults B1, B2: a status waits for no writer, however long that has the lock,
// and opens nothing of the workspace for writing.
func TestStatusBesideAWriterThatStandsStill(t *testing.T) {
	w := newWorld(t, patient, vm("web", forward(freePort(t), 80)))
	w.personality("slow-boot=60s")
	up, wait := w.start(errand{Verb: "up", Options: w.options()})
	require.Eventually(t, func() bool { return w.everLaunched() }, patience, poll)
	require.NoError(t, up.Process.Signal(syscall.SIGSTOP))
	before := snapshot(t, w.home)
	writes := w.watchWrites(w.home, w.dir)
	for _, verb := range []string{"status", "ports"} {
		for _, out := range w.atOnce(4, func(int) errand { return errand{Verb: verb, Options: w.options()} }) {
			require.Empty(t, out.Fault)
			if verb == "status" {
				require.Equal(t, "booting", out.Status.VMs[0].State)
			} else {
				require.True(t, out.Ports.Ports[0].Active)
			}
		}
	}
	require.Empty(t, writes(), "somebody who only looks has a file open for writing")
	require.Equal(t, before, snapshot(t, w.home))
	require.NoError(t, up.Process.Signal(syscall.SIGCONT))
	require.Empty(t, w.errand("down").Fault)
	require.Contains(t, wait().Fault, "taken down")
	w.cleanSlate()
	require.NotEmpty(t, writes(), "a writer would have been seen")
}

// everLaunched tells that the journal says that a VM was launched.
func (w *world) everLaunched() bool {
	text, _ := os.ReadFile(w.layout().EventLog())
	return strings.Contains(string(text), `"vm.launched"`)
}

// dirs are root and all directories below it.
func dirs(t testing.TB, root string) []string {
	all := []string{root}
	for _, path := range tree(t, root) {
		if st, err := os.Stat(filepath.Join(root, path)); err == nil && st.IsDir() {
			all = append(all, filepath.Join(root, path))
		}
	}
	return all
}

// watchWrites gives what tells of all that has been written, opened for writing,
// made or removed below these directories since it was last asked.
func (w *world) watchWrites(roots ...string) func() []string {
	w.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	require.NoError(w, err)
	w.Cleanup(func() { unix.Close(fd) })
	watched := map[int32]string{}
	for _, root := range roots {
		for _, dir := range dirs(w, root) {
			wd, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_CLOSE_WRITE|unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE)
			require.NoError(w, err)
			watched[int32(wd)] = dir
		}
	}
	return func() (seen []string) {
		buffer := make([]byte, 64<<10)
		for {
			n, err := unix.Read(fd, buffer)
			if err != nil || n <= 0 {
				return seen
			}
			for left := buffer[:n]; len(left) >= unix.SizeofInotifyEvent; {
				var e unix.InotifyEvent
				require.NoError(w, binary.Read(bytes.NewReader(left), binary.NativeEndian, &e))
				name := left[unix.SizeofInotifyEvent:][:e.Len]
				seen = append(seen, fmt.Sprintf("%s/%s: %#x", watched[e.Wd], bytes.TrimRight(name, "\x00"), e.Mask))
				left = left[unix.SizeofInotifyEvent+int(e.Len):]
			}
		}
	}
}
