package castra

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

const noPowerOff = "graceful_shutdown_wait_secs = 0\nsigterm_wait_secs = 30\nsigkill_wait_secs = 30"

// contents are what a pidfile may say; pid is that of a process of somebody.
func contents(pid int) []string {
	bystander := strconv.Itoa(pid)
	return []string{
		bystander, bystander + "\n", " " + bystander, "\n\n" + bystander, bystander + " 1", "+" + bystander, "0" + bystander, "-" + bystander,
		bystander + "\x00", "\x00" + bystander, bystander + ".0", "0x" + strconv.FormatInt(int64(pid), 16), "\xef\xbb\xbf" + bystander,
		"-1", "0", "1", "-0", "2147483647", "2147483648", "-2147483648", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808",
		"18446744073709551616", strings.Repeat("9", 5000), "text", "web-0", "", "\n", "\x00\x00\x00\x00", `{"pid": ` + bystander + `}`,
	}
}

// oddFiles put something in a pidfile's place that is no small regular file.
func oddFiles(t *testing.T, pid int) map[string]func(path string) error {
	victim := filepath.Join(t.TempDir(), "victim.pid")
	require.NoError(t, os.WriteFile(victim, []byte(strconv.Itoa(pid)), 0o600))
	return map[string]func(path string) error{
		"FIFO":             func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory":        func(path string) error { return os.MkdirAll(filepath.Join(path, "d"), 0o700) },
		"symlink":          func(path string) error { return os.Symlink(victim, path) },
		"dangling symlink": func(path string) error { return os.Symlink(victim+"-gone", path) },
		"symlink loop":     func(path string) error { return os.Symlink(path, path) },
		"socket":           func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
		"1 GiB sparse": func(path string) error {
			if err := os.WriteFile(path, []byte(strconv.Itoa(pid)), 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 1<<30)
		},
		"no permissions": func(path string) error { return os.WriteFile(path, []byte(strconv.Itoa(pid)), 0) },
	}
}

// B5: what a pidfile says, or is, never leads to a signal, and nothing waits
// for it. What is no regular file is named, and left.
func TestHostilePidfilesSoak(t *testing.T) {
	w := newWorld(t, noPowerOff, vm("web"))
	innocent := qemutest.StartStranger(t, "")
	w.up()
	w.down()
	path := w.layout().Pidfile("web-0")
	files := oddFiles(t, innocent.PID)
	for i, text := range contents(innocent.PID) {
		files[fmt.Sprintf("content %d", i)] = func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range files {
			if !yield(name) {
				return
			}
		}
	})
	runs := 0
	for i := 0; i < len(names); i += soak.N(6, 1) {
		put := func() { require.NoError(t, files[names[i]](path), names[i]) }
		put()
		st, err := os.Lstat(path)
		require.NoError(t, err)
		require.Equal(t, []string{"web-0 stopped"}, w.states(), names[i])
		_, err = w.open().Ports(t.Context())
		require.NoError(t, err, names[i])
		for _, verb := range []string{"down", "clean", "up"} {
			if st.Mode().IsRegular() {
				_ = os.Remove(path)
				put()
			}
			err := verbs[verb](t.Context(), w.open())
			if st.Mode().IsRegular() {
				require.NoError(t, err, "%s: %s", names[i], verb)
			} else {
				require.ErrorContains(t, err, path, "%s: %s", names[i], verb)
				require.Empty(t, w.running(), "%s: %s", names[i], verb)
			}
		}
		if st.Mode().IsRegular() { // and under a VM that lives, the lock tells
			require.NoError(t, os.WriteFile(path, []byte(strconv.Itoa(innocent.PID)), 0o600))
			require.Equal(t, []string{"web-0 running"}, w.states(), names[i])
			w.down()
		}
		require.Empty(t, innocent.Harm(), names[i])
		require.NoError(t, os.RemoveAll(path))
		w.down()
		runs += 5
	}
	w.cleanSlate()
	soak.AtLeast(t, "B5", "commands run beside a hostile pidfile", 200, float64(runs))
	soak.AtMost(t, "B5", "signals to others", 0, float64(len(innocent.Harm())))
}

// B6: whoever serves the monitor's socket in the VM's place is not believed
// and not harmed, is told nothing that would change a VM, and does not keep
// the VM from being ended.
func TestForeignMonitorsSoak(t *testing.T) {
	w := newWorld(t, noPowerOff, vm("web"))
	s := newStage(w, qemutest.StartStranger(t, ""), qemutest.StartStranger(t, ""))
	scripts := append(qemutest.Scripts(), "qmp", "qmp with its UUID", "wrong id", "stale", "file")
	slices.Sort(scripts)
	tried := 0
	for i := 0; i < len(scripts); i += soak.N(5, 1) {
		script := scripts[i]
		x := s.set(cell{"qemu", "ours", "ours", "right", "this"})
		path := w.layout().Monitor("web-0")
		switch script {
		case "file":
			require.NoError(t, os.Remove(path))
			w.make(path, "mine")
		case "stale":
			x.socket = "stale"
			x.setSocket(path)
		case "qmp with its UUID":
			s.stranger.Serve(path, "qmp", s.vm.UUID)
		default:
			s.stranger.Serve(path, script, "00000000-0000-0000-0000-00000000beef")
		}
		vm := w.status("web-0")
		require.Equal(t, "not responding", vm.State, script)
		require.Equal(t, x.vmPID, vm.PID, script)
		require.NotEmpty(t, vm.Problem, script)
		require.ErrorContains(t, w.open().Up(t.Context(), UpOptions{}), "does not answer", script)
		require.NoError(t, w.open().Down(t.Context()), script)
		require.Empty(t, w.running(), script)
		require.Empty(t, s.stranger.Harm(), script)
		w.cleanSlate()
		tried++
	}
	soak.AtLeast(t, "B6", "foreign and stale monitors", 20, float64(tried))
}

// A monitor whose pidfile is lost is believed only where its process runs in
// the workspace: a server that knows the UUID does not do.
func TestForeignMonitorThatKnowsTheUUID(t *testing.T) {
	w := newWorld(t, noPowerOff, vm("web"))
	stranger := qemutest.StartStranger(t, "")
	s := newStage(w, stranger, stranger)
	s.set(cell{"absent", "absent", "ours", "right", "this"})
	stranger.Serve(w.layout().Monitor("web-0"), "qmp", s.vm.UUID)
	require.Equal(t, "crashed", w.status("web-0").State)
	w.down()
	require.Empty(t, stranger.Harm())
}

// A lock that QEMU does not take is no VM's.
func TestOtherLocksOnThePidfile(t *testing.T) {
	w := newWorld(t, noPowerOff, vm("web"))
	w.up()
	w.down()
	stranger := qemutest.StartStranger(t, w.layout().Root) // even where QEMU would run
	path := w.layout().Pidfile("web-0")
	w.make(path, "")
	stranger.LockForReading(path)
	require.Equal(t, VMStatus{Name: "web-0", Role: "web", State: "stopped", Forwards: []Forward{}}, w.status("web-0"))
	require.ErrorContains(t, w.open().Down(t.Context()), path)
	require.Empty(t, stranger.Harm())
	stranger.Forget()
	own, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer own.Close()
	// What Castra itself has while it removes the file.
	require.NoError(t, unix.FcntlFlock(own.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	require.Zero(t, w.status("web-0").PID)
	require.NoError(t, own.Close())
	w.down()
}

// A5: after a reboot everything is stopped, whoever has the recorded numbers
// now, and what was left is reclaimed.
func TestRebootsSoak(t *testing.T) {
	w := newWorld(t, noPowerOff, vm("web"))
	innocent := qemutest.StartStranger(t, "")
	s := newStage(w, innocent, innocent)
	numbers := []int{innocent.PID, os.Getpid(), os.Getppid(), 1}
	tried := 0
	for i, pid := range numbers {
		for j, verb := range []string{"status", "ports", "up", "down", "clean"} {
			if !soak.Full() && (i+j)%4 != 0 {
				continue
			}
			s.set(cell{"stale", "stale", "ours", "right", "other"})
			session := w.session()
			r := session.VMs["web-0"]
			r.PID = pid
			session.VMs["web-0"] = r
			w.save(session)
			w.make(w.layout().Pidfile("web-0"), strconv.Itoa(pid)+"\n")
			require.Equal(t, []string{"web-0 stopped"}, w.states())
			switch verb {
			case "ports":
				ports, err := w.open().Ports(t.Context())
				require.NoError(t, err)
				for _, port := range ports.Ports {
					require.False(t, port.Active)
				}
			case "up":
				w.up()
				require.Equal(t, []string{"web-0 running"}, w.states())
				w.down()
			case "down", "clean":
				require.NoError(t, verbs[verb](t.Context(), w.open()))
			}
			require.Empty(t, innocent.Harm(), "%s with pid %d", verb, pid)
			w.down()
			w.cleanSlate()
			tried++
		}
	}
	soak.AtLeast(t, "A5", "commands after a reboot, the numbers taken by others", 20, float64(tried))
	soak.AtMost(t, "A5", "signals to others", 0, float64(len(innocent.Harm())))
}

// B7: whatever became of a record, cut at any byte or a bit of any byte
// turned, the VM that lives can be ended, and nothing is left of it.
func TestDamagedRecordsSoak(t *testing.T) {
	w := newWorld(t, noPowerOff, vm("web"))
	s := newStage(w, qemutest.StartStranger(t, ""), qemutest.StartStranger(t, ""))
	s.set(cell{"qemu", "ours", "ours", "right", "this"})
	l := w.layout()
	bytesOf := map[string]int{l.Session(): len(mustRead(t, l.Session())), l.Record(): len(mustRead(t, l.Record()))}
	tried, lost := 0, 0
	for path, length := range bytesOf {
		for at := 0; at < length; at += soak.N(length/3, 1) {
			for _, cut := range []bool{true, false} {
				x := s.set(cell{"qemu", "ours", "ours", "right", "this"})
				damaged := bytes.Clone(mustRead(t, path))
				if cut {
					damaged = damaged[:at]
				} else {
					damaged[at%len(damaged)] ^= 1 << (at % 8)
				}
				w.make(path, string(damaged))
				what := fmt.Sprintf("%s, byte %d, cut %v", filepath.Base(path), at, cut)
				assert.Equal(t, x.vmPID, w.status("web-0").PID, what)
				err := w.open().Down(t.Context())
				assert.NoError(t, err, what)
				if !assert.Empty(t, w.running(), what) {
					lost++
				}
				assert.NoError(t, w.open().Down(t.Context()), what)
				assert.NoFileExists(t, x.overlay, what)
				require.Less(t, lost, 10)
				tried++
			}
		}
	}
	s.strike()
	soak.AtLeast(t, "B7", "damaged records under a VM that lives", 3000, float64(tried))
	soak.AtMost(t, "B7", "VMs that down could not end", 0, float64(lost))
}
