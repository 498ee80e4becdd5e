package castra

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/soak"
	"castra.example/castra/castra/internal/sweep"
)

// A6: what is put in place by its name has been synced before, and its directory after.
func TestRenamesAreSynced(t *testing.T) {
	fakes := stageFakes(t)
	total, synced := 0, 0
	for _, name := range []string{"up elsewhere with a bootstrap", "up that makes a template", "down", "clean with force"} {
		s := scenes[slices.IndexFunc(scenes, func(s sweptScene) bool { return s.name == name })]
		t.Run(name, func(t *testing.T) {
			w, o := s.set(t, fakes)
			r, said := w.trace(o, sweep.Plan{})
			require.Zero(t, r.Status.ExitStatus(), said)
			w.goOn(onward[1])
			for i, c := range r.Calls {
				if c.To == "" || c.Err != 0 {
					continue
				}
				before, after := durable(c.To)
				if !before {
					continue
				}
				total++
				missing := ""
				if !syncedBefore(r.Calls[:i], c.Path) {
					missing = "its file is not synced before"
				} else if after && !syncedAfter(r.Calls[i:], filepath.Dir(c.To)) {
					missing = "its directory is not synced after"
				}
				if missing == "" {
					synced++
				} else {
					t.Errorf("%v: %s", c, missing)
				}
			}
		})
	}
	require.Greater(t, total, 20)
	soak.AtLeast(t, "A6", "renames into a final name that are synced, of 100", 100, float64(100*synced/total))
}

// durable tells whether a file must have been synced when it gets this name, and
// the directory after.
func durable(name string) (file, dir bool) {
	switch base := filepath.Base(name); {
	case strings.Contains(name, "/home/templates/"): // believed in the boot alone in which it was written
		return false, false
	case strings.HasSuffix(base, ".log.1"), strings.HasSuffix(base, ".jsonl.1"): // what QEMU or this command printed before
		return false, false
	case strings.Contains(base, "seed"): // of a VM that no power cut lets live: it is made anew at each launch
		return true, false
	default:
		return true, true
	}
}

// syncedBefore tells that the last of the calls on the file that change what it holds was followed by one that syncs it.
func syncedBefore(calls []sweep.Call, path string) bool {
	for _, c := range slices.Backward(calls) {
		if c.Path != path || c.Err != 0 {
			continue
		}
		switch c.Name {
		case "fsync", "fdatasync":
			return true
		case "fchmod", "fchmodat", "chmod":
		default:
			return false
		}
	}
	return false
}

func syncedAfter(calls []sweep.Call, dir string) bool {
	return slices.ContainsFunc(calls, func(c sweep.Call) bool { return c.Name == "fsync" && c.Path == dir && c.Err == 0 })
}

// A6: whichever of its state a power cut has emptied or cut short, status speaks, and up, down and clean work.
func TestTruncatedStateSoak(t *testing.T) {
	fakes := stageFakes(t)
	lengths := soak.N(4, 100)
	w := newSwept(t, fakes)
	w.warm, w.state = "", filepath.Join(filepath.Dir(w.dir), "state")
	w.configure(patient, w.bootstrapped("web", "echo done"))
	w.image()
	w.up()
	var files []string
	for _, dir := range []string{w.state, w.home} {
		for _, name := range tree(t, dir) {
			path := filepath.Join(dir, name)
			if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && isState(name) {
				files = append(files, path)
			}
		}
	}
	t.Log(len(files), files)
	require.Greater(t, len(files), 10)
	w.down()
	tried := 0
	for _, file := range files {
		t.Run(varying.ReplaceAllString(filepath.Base(file), "#"), func(t *testing.T) {
			w := *w
			w.T = t
			w.up()
			whole := mustRead(t, file)
			end := len(whole) - 1 // a newline at most, which nobody misses
			variants := max(min(lengths, end), 1)
			for n := range variants {
				require.NoError(t, os.WriteFile(file, whole[:n*max(end, 0)/variants], 0o600))
				s, err := w.open().Status(t.Context())
				if filepath.Base(file) == ".castra-workspace" { // without it nothing here is known to be Castra's
					require.ErrorContains(t, err, "not a marker")
					require.NotEmpty(t, hint(err))
					tried++
					continue
				}
				require.NoError(t, err)
				require.Len(t, s.VMs, 1)
				require.NotContains(t, []string{"stopped", "crashed"}, s.VMs[0].State, "%d bytes", n)
				tried++
			}
			require.NoError(t, os.WriteFile(file, whole, 0o600))
			w.down()
			for i, n := range []int{0, len(whole) / 2, max(len(whole)-2, 0)} {
				if n > 0 && !soak.Full() || filepath.Base(file) == ".castra-workspace" {
					continue
				}
				if _, err := os.Lstat(file); err != nil && i%2 == 0 { // it goes with its VM
					w.up()
				}
				if len(w.qemus()) > 0 { // a power cut ends it too
					w.crashOf("web-0")
				}
				if st, err := os.Lstat(file); err == nil {
					require.NoError(t, os.Truncate(file, min(int64(n), st.Size())))
				}
				w.goOn(onward[(i+len(file))%len(onward)])
			}
		})
	}
	soak.AtLeast(t, "A6", fmt.Sprintf("states with one of %d files cut short", len(files)), 1000, float64(tried))
}

// isState tells a file that commands read again from the disks of guests and from what was printed.
func isState(name string) bool {
	base := filepath.Base(name)
	return !strings.HasPrefix(name, "logs/") && !strings.HasPrefix(name, "overlays/") && !strings.HasSuffix(base, ".qcow2") &&
		base != "ram" && base != "state" && !strings.HasPrefix(name, "bootstrap/")
}
