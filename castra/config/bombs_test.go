package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/soak"
)

// bombs are files that cost more to read than any project is worth, by what they do.
func bombs() map[string]string {
	big := func(s string) string { return strings.Repeat(s, (sizeLimit-2000)/len(s)) }
	numbered := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	vm := head + web
	return map[string]string{
		"count":                      vm + "count = 4294967295\n",
		"count of 64 bits":           vm + "count = 9223372036854775807\n",
		"negative count":             vm + "count = -9223372036854775808\n",
		"count beyond 64 bits":       vm + "count = 99999999999999999999999999\n",
		"count of a million digits":  vm + "count = " + big("9") + "\n",
		"float of a million digits":  vm + "memory = 1." + big("1") + "\n",
		"exponent":                   vm + "memory = 1e" + big("9") + "\n",
		"64 counts":                  head + numbered(64, "[[vms]]\nname = \"v%d\"\ncount = 64\n"),
		"a million ports":            vm + "port_forwards = [" + strings.Repeat("{guest=1},", 100_000) + "]\n",
		"ports as tables":            vm + strings.Repeat("[[vms.port_forwards]]\nguest=1\n", 33_000),
		"ports of 64 replicas":       vm + "count = 64\nport_forwards = [" + strings.Repeat("{guest=80},", 200) + "]\n",
		"ports of instances":         vm + "count = 64\n" + numbered(64, "[[vms.instances]]\nid = \"web-%d\"\nport_forwards = ["+strings.Repeat("{guest=80},", 250)+"]\n"),
		"deep arrays":                "a = " + big("["),
		"deep arrays, closed":        "a = " + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + "\n",
		"deep inline tables":         "a = " + big("{a="),
		"deep mixed":                 "a = " + big("[{a="),
		"deep headers":               numbered(3000, "[a"+strings.Repeat(".b", 100)+".c%d]\n"),
		"header of a million names":  "[" + big("a.") + "a]\n",
		"array of a million tables":  big("[[a]]\n"),
		"nested arrays of tables":    strings.Repeat("[[a]]\n[[a.b]]\n[[a.b.c]]\n[[a.b.c.d]]\n", 30_000),
		"a million dotted keys":      numbered(100_000, "a.b.c%d=1\n"),
		"a dotted key":               big("a.") + "a = 1\n",
		"dotted in inline":           "x = {" + big("a.") + "a = 1}\n",
		"quoted dotted":              big("\"a\".") + "a = 1\n",
		"a key of 500 KB":            vm + strings.Repeat("k", 500_000) + " = 1\n",
		"a quoted key of 500 KB":     vm + "\"" + strings.Repeat("k ", 250_000) + "\" = 1\n",
		"a header of 500 KB":         "[" + strings.Repeat("k", 500_000) + "]\n",
		"headers under a long one":   "[x." + strings.Repeat("y", 100_000) + "]\n" + numbered(80_000, "k%d=1\n"),
		"a million keys":             vm + numbered(100_000, "k%d=1\n"),
		"a million keys inline":      "x = {" + numbered(100_000, "k%d=1,") + "}\n",
		"a million keys of env":      vm + "[vms.bootstrap.env]\n" + numbered(80_000, "K%d=\"\"\n"),
		"one key again and again":    vm + big("cpus = 1\n"),
		"near misses":                vm + numbered(15_000, "nam%d=1\n"),
		"a million values":           "x = [" + big("1,") + "]\n",
		"a million empty arrays":     "x = [" + big("[],") + "]\n",
		"a million strings":          "x = [" + big("'',") + "]\n",
		"a million dates":            "x = [" + big("1979-05-27,") + "]\n",
		"a string of 1 MB":           vm + "cpu = \"" + big("x") + "\"\n",
		"a string of escapes":        vm + "cpu = \"" + big(`\u0041`) + "\"\n",
		"a string without end":       vm + "description = \"" + big("x"),
		"a multi-line without end":   vm + "description = \"\"\"" + big("x\n"),
		"a literal without end":      vm + "description = '''" + big("x\n"),
		"quotes":                     "a = " + big("\"\"\""),
		"backslashes":                "a = \"" + big("\\"),
		"a comment of 1 MB":          "# " + big("x") + "\n",
		"comments":                   big("#\n"),
		"blank lines":                big("\n"),
		"tabs":                       big("\t"),
		"one million brackets":       big("]"),
		"one million equals":         big("="),
		"one million commas":         "a = [" + big(",") + "]\n",
		"an expression's worst case": vm + "checksum = \"sha512:" + strings.Repeat("a", 900_000) + "\"\n",
		"a host's worst case":        vm + "[vms.ssh]\nhost = \"" + strings.Repeat("a.", 450_000) + "\"\n",
		"a user's worst case":        vm + "[vms.ssh]\nuser = \"" + strings.Repeat("_", 900_000) + "\"\n",
		"a path of 1 MB":             vm + "overlay = \"" + big("a/") + "b.qcow2\"\n",
		"a path of dots":             vm + "base_image = \"" + big("../") + "x\"\n",
		"a URL of 1 MB":              vm + "base_image = \"https://x/" + big("%41") + "\"\n",
		"NUL":                        vm + "description = \"a\x00b\"\n",
		"a NUL escape":               vm + "[vms.bootstrap.env]\nA = \"\\u0000\"\n",
		"two BOMs":                   "\xef\xbb\xbf\xef\xbb\xbf" + vm,
		"UTF-16":                     "\xff\xfev\x00e\x00r\x00",
		"UTF-32":                     "\x00\x00\xfe\xffv",
		"overlong UTF-8":             vm + "description = \"\xc0\xaf\"\n",
		"a surrogate":                vm + "description = \"\xed\xa0\x80\"\n",
		"beyond Unicode":             vm + "description = \"\\UFFFFFFFF\"\n",
		"full-width name":            head + "[[vms]]\nname = \"ｗｅｂ\"\n",
		"a bidi name":                head + "[[vms]]\nname = \"web\u202e\"\n",
		"combining marks":            head + "[[vms]]\nname = \"w" + strings.Repeat("\u0301", 300_000) + "\"\n",
		"a key in another script":    vm + "nаme = \"x\"\n",
		"a name of 1 MB":             head + "[[vms]]\nname = \"" + big("x") + "\"\n",
		"bare CR":                    strings.ReplaceAll(vm, "\n", "\r"),
		"binary":                     big("\x7fELF\x01\x02"),
	}
}

// notFiles are what stands in the place of a file.
var notFiles = map[string]func(file string) error{
	"1 GiB sparse": func(file string) error {
		return errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<30))
	},
	"a FIFO":         func(file string) error { return unix.Mkfifo(file, 0o600) },
	"a directory":    func(file string) error { return os.Mkdir(file, 0o700) },
	"/dev/zero":      func(file string) error { return os.Symlink("/dev/zero", file) },
	"a terminal":     func(file string) error { return os.Symlink("/dev/ptmx", file) },
	"itself":         func(file string) error { return os.Symlink(FileName, file) },
	"nowhere":        func(file string) error { return os.Symlink("none", file) },
	"a socket":       func(file string) error { return socket(file) },
	"a name too far": func(file string) error { return os.Symlink(strings.Repeat("x/", 2000)+"x", file) },
}

// socket makes one by its relative name: a socket's path may have 107 bytes.
func socket(file string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "s")}); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "s"), file)
}

// E3: a hostile file is refused in few words, with little memory, and at once.
func TestBombsSoak(t *testing.T) {
	files := map[string]string{}
	for name, source := range bombs() {
		files[name] = write(t, source)
	}
	for name, put := range notFiles {
		files[name] = filepath.Join(t.TempDir(), FileName)
		require.NoError(t, put(files[name]), name)
	}
	all := slices.Sorted(maps.Keys(files))
	if !soak.Full() {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:25]
	}
	var slowest time.Duration
	var largest uint64
	for _, name := range all {
		took, bytes := refusal(t, files[name], name)
		for try := 0; took > 100*time.Millisecond && try < 2; try++ { // what else runs here costs it time too
			again, _ := refusal(t, files[name], name)
			took = min(took, again)
		}
		if took > 50*time.Millisecond || bytes > 25<<20 {
			t.Logf("%s: %v, %d MB", name, took, bytes>>20)
		}
		slowest, largest = max(slowest, took), max(largest, bytes)
	}
	soak.AtLeast(t, "E3", "hostile files that are refused", 60, float64(len(all)))
	soak.AtMost(t, "E3", "MB of memory for one of them", 50, float64(largest)/(1<<20))
	soak.Figure(t, "E3", "processor time for one of them", 100, float64(slowest.Microseconds())/1000, " ms")
}

// refusal is what it takes to refuse the file.
func refusal(t *testing.T, file, name string) (took time.Duration, bytes uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := processorTime(t)
	_, err := Load(file)
	took = processorTime(t) - began
	runtime.ReadMemStats(&after)
	require.Error(t, err, name)
	require.True(t, errors.As(err, new(Faults)) || errors.As(err, new(*fs.PathError)), "%s: %v", name, err)
	require.Less(t, len(err.Error()), 50_000, name)
	return took, after.TotalAlloc - before.TotalAlloc
}

// processorTime is what this process has had so far: unlike a clock it says nothing of what else runs.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
