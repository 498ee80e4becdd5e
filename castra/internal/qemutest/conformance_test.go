package qemutest

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/qmp"
)

// TestConformance holds the fake QEMU to what the real one does.
func TestConformance(t *testing.T) {
	worlds := map[string]func(*testing.T) *world{
		"fake": func(t *testing.T) *world { return fakeWorld(t, "") },
		"real": realWorld,
	}
	for kind, build := range worlds {
		t.Run(kind, func(t *testing.T) {
			for name, check := range conformance {
				t.Run(name, func(t *testing.T) {
					checkLeaks(t)
					check(t, build(t))
				})
			}
			for _, target := range targets {
				for name, check := range targetConformance {
					t.Run(name+" "+target.name, func(t *testing.T) {
						checkLeaks(t)
						w := build(t)
						w.become(t, target.name)
						check(t, w, target)
					})
				}
			}
			for name, check := range savingConformance {
				t.Run(name, func(t *testing.T) {
					if runtime.GOOS != "linux" {
						t.Skip("memory is in a memfd on Linux alone")
					}
					checkLeaks(t)
					check(t, build(t))
				})
			}
		})
	}
}

var conformance = map[string]func(*testing.T, *world){
	"version": func(t *testing.T, w *world) {
		out, err := exec.Command(w.qemu, "--version").Output()
		require.NoError(t, err)
		require.Regexp(t, `^QEMU emulator version \d+\.\d+\.\d+ \(`, string(out))
	},
	"-L help names the directories of its firmware": func(t *testing.T, w *world) {
		out, err := exec.Command(w.qemu, "-L", "help").Output()
		require.NoError(t, err)
		found := 0
		for dir := range strings.Lines(string(out)) {
			if _, err := os.Stat(filepath.Join(strings.TrimSpace(dir), "bios-256k.bin")); err == nil {
				found++
			}
		}
		require.Positive(t, found, string(out))
	},
	"the pidfile holds the pid and the lock": func(t *testing.T, w *world) {
		v := w.launch(t, "a", w.args("a")...)
		text, err := os.ReadFile(w.path("a.pid"))
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(v.cmd.Process.Pid)+"\n", string(text))
		require.Equal(t, v.cmd.Process.Pid, w.holder(t, "a"))
	},
	"a second start on a pidfile fails": func(t *testing.T, w *world) {
		v := w.launch(t, "a", w.args("a")...)
		code, stderr := w.start(t, w.args("a")...).result(t)
		require.Equal(t, 1, code)
		require.Equal(t, "qemu-system-x86_64: cannot create PID file: Cannot lock pid file: Resource temporarily unavailable\n", stderr)
		require.Equal(t, v.cmd.Process.Pid, w.holder(t, "a"))
		require.Equal(t, "running", statusOf(t, w.dial(t, "a")), "the first keeps its monitor")
	},
	"a pidfile nowhere": func(t *testing.T, w *world) {
		code, stderr := w.start(t, "-display", "none", "-pidfile", "/nonexistent/a.pid").result(t)
		require.Equal(t, 1, code)
		require.Equal(t, "qemu-system-x86_64: cannot create PID file: Could not create '/nonexistent/a.pid': No such file or directory\n", stderr)
	},
	"SIGKILL frees the lock and leaves the files": func(t *testing.T, w *world) {
		v := w.launch(t, "a", w.args("a")...)
		v.signal(t, syscall.SIGKILL)
		v.result(t)
		require.Zero(t, w.holder(t, "a"))
		require.FileExists(t, w.path("a.pid"))
		_, err := qmp.Dial(t.Context(), w.path("a.qmp"))
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "the socket is still there")
		w.launch(t, "a", w.args("a")...) // and does not stand in the way
	},
	"SIGTERM ends it in order": func(t *testing.T, w *world) {
		v := w.launch(t, "a", w.args("a")...)
		v.signal(t, syscall.SIGTERM)
		code, stderr := v.result(t)
		require.Zero(t, code)
		require.Contains(t, stderr, "qemu-system-x86_64: terminating on signal 15")
		require.NoFileExists(t, w.path("a.pid"))
		require.NoFileExists(t, w.path("a.qmp"))
	},
	"quit ends it in order": func(t *testing.T, w *world) {
		v := w.launch(t, "a", w.args("a")...)
		require.NoError(t, w.dial(t, "a").Execute(t.Context(), "quit", nil, nil))
		code, stderr := v.result(t)
		require.Zero(t, code)
		require.Empty(t, stderr)
		require.NoFileExists(t, w.path("a.pid"))
		require.NoFileExists(t, w.path("a.qmp"))
	},
	"greeting and negotiation": func(t *testing.T, w *world) {
		w.launch(t, "a", w.args("a")...)
		say := converse(t, w.path("a.qmp"))
		require.Contains(t, decode(t, say("")), "QMP")
		require.JSONEq(t, `{"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}`,
			say(`{"execute":"query-status"}`))
		require.JSONEq(t, `{"return": {}}`, say(`{"execute":"qmp_capabilities"}`))
		require.JSONEq(t, `{"return": {"name": "a"}, "id": "x"}`, say(`{"execute":"query-name", "id": "x"}`))
		require.JSONEq(t, `{"error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}, "id": 7}`, say(`{"execute":"nope","id":7}`))
	},
	"events": func(t *testing.T, w *world) {
		w.launch(t, "a", w.args("a")...)
		say := converse(t, w.path("a.qmp"))
		say("")
		say(`{"execute":"qmp_capabilities"}`)
		require.Contains(t, say(`{"execute":"stop"}`), `"STOP"`)
		require.JSONEq(t, `{"return": {}}`, say(""))
		require.Contains(t, say(`{"execute":"quit"}`), `"host-qmp-quit"`)
		require.JSONEq(t, `{"return": {}}`, say(""))
	},
	"one client at a time": func(t *testing.T, w *world) {
		w.launch(t, "a", w.args("a")...)
		first := w.dial(t, "a")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := qmp.Dial(ctx, w.path("a.qmp"))
		require.ErrorIs(t, err, qmp.ErrBusy)
		require.NoError(t, first.Close())
		require.Equal(t, "running", statusOf(t, w.dial(t, "a")))
	},
	"stopped at start": func(t *testing.T, w *world) {
		v := w.launch(t, "a", append(w.args("a"), "-S")...)
		c := w.dial(t, "a")
		require.Equal(t, "prelaunch", statusOf(t, c))
		require.NoError(t, c.Execute(t.Context(), "system_powerdown", nil, nil), "accepted and ignored")
		require.NoError(t, c.Execute(t.Context(), "cont", nil, nil))
		require.Equal(t, "running", statusOf(t, c))
		require.NoError(t, c.Execute(t.Context(), "stop", nil, nil))
		require.Equal(t, "paused", statusOf(t, c))
		require.True(t, v.alive())
	},
	"identity": func(t *testing.T, w *world) {
		v := w.launch(t, "a", w.args("a")...)
		c := w.dial(t, "a")
		var id struct{ UUID string }
		require.NoError(t, c.Execute(t.Context(), "query-uuid", nil, &id))
		require.Equal(t, testUUID, id.UUID)
		require.Contains(t, []int{v.cmd.Process.Pid, 0}, c.Peer())
	},
	"an unknown command is refused": func(t *testing.T, w *world) {
		w.launch(t, "a", w.args("a")...)
		c := w.dial(t, "a")
		var refused *qmp.Error
		require.ErrorAs(t, c.Execute(t.Context(), "nope", nil, nil), &refused)
		require.Equal(t, qmp.Error{Command: "nope", Class: "CommandNotFound", Desc: "The command nope has not been found"}, *refused)
		text, err := c.HumanMonitor(t.Context(), "nope")
		require.NoError(t, err)
		require.Equal(t, "unknown command: 'nope'\r\n", text)
	},
	"forwards with chosen ports": func(t *testing.T, w *world) {
		w.launch(t, "a", w.args("a", "tcp:127.0.0.1:0-:22", "tcp:127.0.0.1:0-:80", "udp:127.0.0.1:0-:53")...)
		ports := forwardsOf(t, w.dial(t, "a"))
		require.Len(t, ports, 3)
		for _, guest := range []string{"22/tcp", "80/tcp"} {
			conn, err := net.Dial("tcp", ports[guest])
			require.NoError(t, err, "accepts, although no guest is there")
			conn.Close()
		}
		_, err := net.ListenPacket("udp4", ports["53/udp"])
		require.ErrorIs(t, err, syscall.EADDRINUSE)
	},
	"info usernet to the letter": func(t *testing.T, w *world) {
		w.launch(t, "a", w.args("a", "tcp:127.0.0.1:0-:22", "udp:127.0.0.1:0-:53")...)
		text, err := w.dial(t, "a").HumanMonitor(t.Context(), "info usernet")
		require.NoError(t, err)
		require.Regexp(t, `^Hub -1 \(net0\):\r\n  Protocol\[State\]    FD  Source Address  Port   Dest\. Address  Port RecvQ SendQ\r\n`+
			`  TCP\[HOST_FORWARD\]  \d\d       127\.0\.0\.1 \d{5}       10\.0\.2\.15    22     0     0\r\n`+
			`  UDP\[HOST_FORWARD\]  \d\d       127\.0\.0\.1 \d{5}       10\.0\.2\.15    53     0     0\r\n$`, text)
	},
	"a taken port": func(t *testing.T, w *world) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer taken.Close()
		rule := "tcp:" + taken.Addr().String() + "-:22"
		code, stderr := w.start(t, w.args("a", rule)...).result(t)
		require.Equal(t, 1, code)
		require.Equal(t, "qemu-system-x86_64: -netdev user,id=net0,hostfwd="+rule+": Could not set up host forwarding rule '"+rule+"'\n", stderr)
		require.NoFileExists(t, w.path("a.pid"))
		_, err = os.Lstat(w.path("a.qmp"))
		require.NoError(t, err, "the socket stays behind")
	},
	"the serial log is appended to": func(t *testing.T, w *world) {
		require.NoError(t, os.WriteFile(w.path("a-serial.log"), []byte("last boot\n"), 0o600))
		w.launch(t, "a", w.args("a")...)
		text, err := os.ReadFile(w.path("a-serial.log"))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(text), "last boot\n"), "%q", text)
	},
	"the serial port is a descriptor in a set": func(t *testing.T, w *world) {
		out, in, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, out.Close()) // nobody reads what it says
		args := append([]string{"-add-fd", "fd=3,set=1"}, w.args("a")...)
		i := slices.Index(args, "file,id=serial0,append=on,path=a-serial.log")
		args[i] = "file,id=serial0,append=on,path=/dev/fdset/1"
		v := w.startWith(t, []*os.File{in}, args...)
		require.NoError(t, in.Close())
		w.await(t, v, "a")
		require.Equal(t, "running", statusOf(t, w.dial(t, "a")))
	},
	"a descriptor that there is not": func(t *testing.T, w *world) {
		for _, c := range [][2]string{
			{"fd=x,set=1", "-add-fd fd=x,set=1: Parameter 'fd' expects a number"},
			{"fd=1,set=1", "-add-fd fd=1,set=1: fd cannot be a standard I/O stream"},
			{"fd=99,set=1", "-add-fd fd=99,set=1: fd is not valid or already in use"},
		} {
			code, stderr := w.start(t, append([]string{"-add-fd", c[0]}, w.args("a")...)...).result(t)
			require.Equal(t, 1, code)
			require.Equal(t, "qemu-system-x86_64: "+c[1]+"\n", stderr)
		}
		args := w.args("a")
		i := slices.Index(args, "file,id=serial0,append=on,path=a-serial.log")
		args[i] = "file,id=serial0,append=on,path=/dev/fdset/2"
		code, stderr := w.start(t, args...).result(t)
		require.Equal(t, 1, code)
		require.Equal(t, "qemu-system-x86_64: -chardev "+args[i]+": Could not open '/dev/fdset/2': No such file or directory\n", stderr)
	},
	"what stands at the socket's path is replaced": func(t *testing.T, w *world) {
		require.NoError(t, os.WriteFile(w.path("a.qmp"), []byte("x"), 0o600))
		w.launch(t, "a", w.args("a")...)
	},
	"a second QEMU takes a socket over": func(t *testing.T, w *world) {
		w.launch(t, "a", w.args("a")...)
		args := w.args("a")
		args[len(args)-1] = w.path("b.pid")
		second := w.start(t, args...)
		require.Eventually(t, func() bool {
			c, err := qmp.Dial(t.Context(), w.path("a.qmp"))
			return err == nil && c.Close() == nil && (c.Peer() == second.cmd.Process.Pid || c.Peer() == 0)
		}, patience, 10*time.Millisecond)
	},
	"a socket's path is too long": func(t *testing.T, w *world) {
		args := w.args(strings.Repeat("n", 110))
		code, stderr := w.start(t, args...).result(t)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, ".qmp' is too long\nPath must be less than 108 bytes\n")
	},
	"commas in a path are doubled": func(t *testing.T, w *world) {
		w.launch(t, "a,b", withPaths(w.args("a,,b"), w.path("a.pid"))...)
		require.FileExists(t, w.path("a,b-serial.log"))
	},
	"an overlay has one writer": func(t *testing.T, w *world) {
		WriteImage(t, w.path("o.qcow2"), 1<<30)
		w.launch(t, "a", append(w.args("a"), overlayArgs(w.path("o.qcow2"))...)...)
		code, stderr := w.start(t, append(w.args("b"), overlayArgs(w.path("o.qcow2"))...)...).result(t)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "Failed to get \"write\" lock\nIs another process using the image ["+w.path("o.qcow2")+"]?\n")
		require.NoFileExists(t, w.path("b.pid"))
	},
	"an overlay that is missing or none": func(t *testing.T, w *world) {
		code, stderr := w.start(t, append(w.args("a"), overlayArgs(w.path("none"))...)...).result(t)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "Could not open '"+w.path("none")+"': No such file or directory")
		require.NoError(t, os.WriteFile(w.path("raw"), make([]byte, 1<<20), 0o600))
		code, stderr = w.start(t, append(w.args("a"), overlayArgs(w.path("raw"))...)...).result(t)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "Image is not in qcow2 format")
	},
	"an overlay on a raw image, and on another than it says": func(t *testing.T, w *world) {
		WriteRawImage(t, w.path("raw"), 1<<20)
		WriteImage(t, w.path("qcow2"), 1<<20)
		for name, x := range map[string]struct{ base, format, says string }{
			"raw":              {w.path("raw"), "raw", ""},
			"a qcow2 as raw":   {w.path("qcow2"), "raw", ""},
			"a raw as a qcow2": {w.path("raw"), "qcow2", "Could not open backing file: Image is not in qcow2 format\n"},
			"missing":          {"/nonexistent/base", "raw", "Could not open backing file: Could not open '/nonexistent/base': No such file or directory\n"},
		} {
			require.NoError(t, writeQcow2(w.path("o.qcow2"), 1<<20, x.base, x.format))
			overlay := overlayArgs(w.path("o.qcow2"))
			if x.says == "" {
				v := w.launch(t, "a", append(w.args("a"), overlay...)...)
				require.NoError(t, w.dial(t, "a").Execute(t.Context(), "quit", nil, nil), name)
				v.result(t)
				continue
			}
			code, stderr := w.start(t, append(w.args("a"), overlay...)...).result(t)
			require.Equal(t, 1, code, name)
			require.Equal(t, "qemu-system-x86_64: -blockdev "+overlay[1]+": "+x.says, stderr)
		}
	},
	"a -blockdev that QEMU does not take": func(t *testing.T, w *world) {
		WriteRawImage(t, w.path("raw"), 1<<20)
		file := `"file":{"driver":"file","filename":"` + w.path("raw") + `"`
		for value, says := range map[string]string{
			`{"node-name":"o","driver":"raw","nope":1,` + file + `}}`:   "Parameter 'nope' is unexpected",
			`{"node-name":"o","driver":"raw",` + file + `,"nope":1}}`:   "Parameter 'file.nope' is unexpected",
			`{"node-name":"o","driver":"nope",` + file + `}}`:           "Parameter 'driver' does not accept value 'nope'",
			`{"node-name":"other","driver":"raw",` + file + `}}`:        "Duplicate nodes with node-name='other'",
			`{"node-name":"o","driver":"qcow2",` + file + `}}`:          "Image is not in qcow2 format",
			`{"node-name":"o","driver":"raw","file":{"driver":"nope"}}`: "Parameter 'driver' does not accept value 'nope'",
		} {
			other := `{"node-name":"other","driver":"raw","read-only":true,` + file + `}}`
			code, stderr := w.start(t, append(w.args("a"), "-blockdev", other, "-blockdev", value)...).result(t)
			require.Equal(t, 1, code, says)
			require.Equal(t, "qemu-system-x86_64: -blockdev "+value+": "+says+"\n", stderr)
		}
	},
	"qemu-img creates an overlay on a raw image": func(t *testing.T, w *world) {
		WriteRawImage(t, w.path("base"), 1<<20)
		out, err := w.runImg(t, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", w.path("base"), w.path("o.qcow2"))
		require.NoError(t, err, out)
		out, err = w.runImg(t, "info", "--output=json", w.path("o.qcow2"))
		require.NoError(t, err, out)
		require.EqualValues(t, 1<<20, decode(t, out)["virtual-size"])
		require.Equal(t, "raw", decode(t, out)["backing-filename-format"])
	},
	"qemu-img creates an overlay": func(t *testing.T, w *world) {
		WriteImage(t, w.path("base"), 3<<30)
		before, err := os.Create(w.path("o.qcow2"))
		require.NoError(t, err)
		defer before.Close()
		out, err := w.runImg(t, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", w.path("base"), w.path("o.qcow2"))
		require.NoError(t, err, out)
		require.Empty(t, out)
		stat, err := before.Stat()
		require.NoError(t, err)
		require.NotZero(t, stat.Size(), "the file that was there is filled, not replaced")
		out, err = w.runImg(t, "info", "--output=json", w.path("o.qcow2"))
		require.NoError(t, err, out)
		info := decode(t, out)
		require.Equal(t, "qcow2", info["format"])
		require.EqualValues(t, 3<<30, info["virtual-size"])
		require.Equal(t, w.path("base"), info["backing-filename"])
		require.Equal(t, "qcow2", info["backing-filename-format"])
	},
	"qemu-img looks for the base beside the overlay": func(t *testing.T, w *world) {
		require.NoError(t, os.Mkdir(w.path("sub"), 0o700))
		WriteImage(t, w.path("sub/base"), 1<<20)
		out, err := w.runImg(t, "create", "-f", "qcow2", "-F", "qcow2", "-b", "base", "sub/o")
		require.NoError(t, err, out)
		out, err = w.runImg(t, "create", "-f", "qcow2", "-F", "qcow2", "-b", "sub/base", "sub/o2")
		require.Error(t, err, out)
		require.Contains(t, out, "sub/o2: Could not open 'sub/sub/base': No such file or directory\nCould not open backing image.")
	},
	"qemu-img refuses a base that is no qcow2": func(t *testing.T, w *world) {
		require.NoError(t, os.WriteFile(w.path("base"), make([]byte, 1<<20), 0o600))
		out, err := w.runImg(t, "create", "-f", "qcow2", "-F", "qcow2", "-b", "base", "o")
		require.Error(t, err, out)
		require.Contains(t, out, "Image is not in qcow2 format")
	},
}

// withPaths replaces the pidfile, which takes its path as it is.
func withPaths(args []string, pidfile string) []string {
	args[len(args)-1] = pidfile
	return args
}

// converse opens a monitor and returns a function that sends a line, unless it
// is empty, and reads one.
func converse(t *testing.T, path string) func(string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	in := bufio.NewReader(conn)
	return func(line string) string {
		if line != "" {
			_, err := conn.Write([]byte(line + "\n"))
			require.NoError(t, err)
		}
		answer, err := in.ReadString('\n')
		require.NoError(t, err)
		return answer
	}
}

// TestFakeImagesAreReal lets the real qemu-img judge the fake's images.
func TestFakeImagesAreReal(t *testing.T) {
	w, judge := fakeWorld(t, ""), realWorld(t)
	judge.dir = w.dir
	for name, size := range map[string]int64{"small": 1 << 20, "odd": 5<<30 + 512, "huge": 9 << 40} {
		t.Run(name, func(t *testing.T) {
			base, overlay := w.path(name), w.path(name+"-overlay")
			WriteImage(t, base, size)
			out, err := w.runImg(t, "create", "-f", "qcow2", "-F", "qcow2", "-b", filepath.Base(base), overlay)
			require.NoError(t, err, out)
			for _, image := range []string{base, overlay} {
				out, err := judge.runImg(t, "check", "--output=json", image)
				require.NoError(t, err, out)
				require.NotContains(t, decode(t, out), "leaks")
			}
			out, err = judge.runImg(t, "info", "--output=json", overlay)
			require.NoError(t, err, out)
			info := decode(t, out)
			require.EqualValues(t, size, info["virtual-size"])
			require.Equal(t, filepath.Base(base), info["backing-filename"])
			require.Equal(t, "qcow2", info["backing-filename-format"])
		})
	}
}
