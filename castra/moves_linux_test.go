package castra

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/soak"
)

// places are a project with its state in the repository, and one with it in
// the home directory.
var places = []string{"in-repo", "home"}

// placed makes a project of one VM below a directory of its own.
func placed(t *testing.T, place string) *world {
	w := newWorld(t, noPowerOff)
	w.dir = filepath.Join(filepath.Dir(w.dir), "above", "project")
	require.NoError(t, os.MkdirAll(w.dir, 0o700))
	state := ""
	if place == "in-repo" {
		state = "state_dir = \".castra\"\n"
	}
	w.write("castra.toml", "version = \"0.2\"\n[project]\nname = \"scratch\"\n"+state+"[lifecycle]\n"+noPowerOff+"\n"+
		strings.ReplaceAll(vm("web"), "base.qcow2", w.base))
	return w
}

// moves of a workspace while its VM runs. What moves is the directory of the
// project where that holds the state, and the home directory where it does not.
var moves = []struct {
	name string
	move func(w *world, place string) error
}{
	{"renamed", func(w *world, place string) error { return w.move(place, "-renamed") }},
	{"renamed twice", func(w *world, place string) error {
		if err := w.move(place, "-a"); err != nil {
			return err
		}
		return w.move(place, "-b")
	}},
	{"moved below", func(w *world, place string) error { return w.move(place, "-below/deep") }},
	{"moved, with a symlink left behind", func(w *world, place string) error {
		before := *w.what(place)
		if err := w.move(place, "-linked"); err != nil {
			return err
		}
		return os.Symlink(*w.what(place), before)
	}},
	{"there and back", func(w *world, place string) error {
		before := *w.what(place)
		if err := w.move(place, "-there"); err != nil {
			return err
		}
		err := os.Rename(*w.what(place), before)
		*w.what(place) = before
		return err
	}},
}

// what is the directory that holds the state.
func (w *world) what(place string) *string {
	if place == "in-repo" {
		return &w.dir
	}
	return &w.home
}

func (w *world) move(place, to string) error {
	from := w.what(place)
	target := *from + to
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	err := os.Rename(*from, target)
	*from = target
	return err
}

// B8: a workspace that was moved has its VM, and takes it down.
func TestMovesSoak(t *testing.T) {
	tried, orphans := 0, 0
	for i, m := range moves {
		for j, place := range places {
			if !soak.Full() && i%2 != j {
				continue
			}
			t.Run(m.name+" "+place, func(t *testing.T) {
				w := placed(t, place)
				w.up()
				pid := w.status("web-0").PID
				require.NoError(t, m.move(w, place))
				require.Equal(t, []string{"web-0 running"}, w.states())
				require.Equal(t, pid, w.status("web-0").PID)
				if err := w.open().Up(t.Context(), UpOptions{}); err != nil { // its files lie where castra.toml no longer says
					require.ErrorAs(t, err, new(*ChangedError))
				}
				require.Equal(t, []int{pid}, w.running(), "no second one is started")
				w.down()
				orphans += len(w.running())
				w.cleanSlate()
				w.up()
				w.down()
				w.cleanSlate()
				tried++
			})
		}
	}
	soak.AtLeast(t, "B8", "moves of a workspace with a living VM", 10, float64(tried))
	soak.AtMost(t, "B8", "VMs that a move has orphaned", 0, float64(orphans))
}

// copies of a workspace, made by cp while its VM runs.
var copies = []struct {
	name string
	args []string
}{
	{"plain", []string{"-r"}},
	{"with all attributes", []string{"-a"}},
	{"of hard links", []string{"-al"}},
	{"of symlinks to files", []string{"-rs"}},
	{"without attributes", []string{"-r", "--no-preserve=all"}},
}

// B8: the copy of a workspace does not see the original's VM as its own, and
// whatever is done there does nothing to it.
func TestCopiesSoak(t *testing.T) {
	tried, kills := 0, 0
	for i, c := range copies {
		for j, place := range places {
			if !soak.Full() && (i+j)%2 != 0 {
				continue
			}
			t.Run(c.name+" "+place, func(t *testing.T) {
				w := placed(t, place)
				w.up()
				before := w.status("web-0")
				overlay := w.session().VMs["web-0"].Overlay.Path
				twin := *w
				*twin.what(place) += "-copy"
				out, err := exec.Command("cp", append(c.args, *w.what(place), *twin.what(place))...).CombinedOutput()
				t.Logf("cp: %v %s", err, out) // it may say that it cannot copy a socket
				root := twin.layout().Root
				require.NoError(t, os.Chmod(root, 0o700))
				told := ""
				for _, verb := range []string{"status", "down", "clean", "up", "down"} {
					if verb == "status" {
						s, err := twin.open().Status(t.Context())
						if err == nil {
							require.Zero(t, s.VMs[0].PID)
						} else {
							require.ErrorContains(t, err, "a symlink, and no record of Castra's")
						}
					} else if err := verbs[verb](t.Context(), twin.open()); err != nil {
						told += fmt.Sprintf("%s: %v\n", verb, err)
					}
					if !contains(w.running(), before.PID) {
						kills++
					}
					now := w.status("web-0")
					require.Equal(t, "running", now.State, verb)
					require.Equal(t, before.PID, now.PID, verb)
					require.FileExists(t, overlay, verb)
				}
				t.Log(told)
				require.Equal(t, []int{before.PID}, w.running(), "the copy's own VM is down")
				w.down()
				w.cleanSlate()
				tried++
			})
		}
	}
	soak.AtLeast(t, "B8", "copies of a workspace with a living VM", 10, float64(tried))
	soak.AtMost(t, "B8", "VMs ended by the copy of their workspace", 0, float64(kills))
}

// A workspace that was brought back from a backup, or lies on another disk now,
// has other files of the same names: they are Castra's all the same.
func TestRestoredFromBackup(t *testing.T) {
	for _, verb := range []string{"down", "clean", "up"} {
		w := newWorld(t, noPowerOff, vm("web"))
		w.up()
		w.kill("web-0")
		backup := w.layout().Root + "-backup"
		require.NoError(t, os.Rename(w.layout().Root, backup))
		out, err := exec.Command("cp", "-a", backup, w.layout().Root).CombinedOutput()
		require.NoError(t, err, string(out))
		require.NoError(t, verbs[verb](t.Context(), w.open()), verb)
		w.down()
		w.cleanSlate()
	}
}
