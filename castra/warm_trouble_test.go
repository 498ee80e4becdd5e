package castra

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/warm"
	"castra.example/castra/castra/internal/workspace"
)

// warnings are what the last up warned of, but for who runs it.
func (w *world) warnings() []string {
	var all []string
	for _, r := range w.events.all() {
		if m, ok := r.Event.(event.Message); ok && m.Level == "warning" {
			all = append(all, m.Text)
		}
	}
	return all
}

// A template that is not as it was saved costs one boot and one warning, and is set aside.
func TestDamagedTemplates(t *testing.T) {
	spoil := func(name string, how func(path string) error) func(dir string) error {
		return func(dir string) error { return how(filepath.Join(dir, name)) }
	}
	flip := func(path string) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 7); err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{^b[0]}, 7)
		return err
	}
	cut := func(path string) error { return os.Truncate(path, 100) }
	for name, damage := range map[string]func(dir string) error{
		"memory cut":       spoil(warm.RAMName, cut),
		"memory altered":   spoil(warm.RAMName, flip),
		"memory missing":   spoil(warm.RAMName, os.Remove),
		"state altered":    spoil(warm.StateName, flip),
		"state missing":    spoil(warm.StateName, os.Remove),
		"disk altered":     spoil(warm.DiskName, flip),
		"disk missing":     spoil(warm.DiskName, os.Remove),
		"manifest garbage": spoil("manifest.json", func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) }),
		"manifest missing": spoil("manifest.json", os.Remove),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, vm("web"))
			w.cycle("web-0")
			whole, _ := w.templates()
			require.NoError(t, damage(whole[0]))
			w.events.forget()
			w.up()
			require.Equal(t, "cold", w.started("web-0"))
			require.Len(t, w.warnings(), 1)
			w.down()
			_, left := w.templates()
			require.Len(t, left, 1)
			require.True(t, strings.HasPrefix(left[0], ".bad-"), left[0])
			require.Equal(t, "ram ready", w.cycle("web-0"), "a new one was saved")
		})
	}
}

// Whatever goes wrong with a restore, the VM comes up by a boot, once.
func TestRestoreThatFails(t *testing.T) {
	for _, personality := range []string{"restore-refused", "restore-silent"} {
		t.Run(personality, func(t *testing.T) {
			w := newWarmWorld(t, vm("web"))
			w.cycle("web-0")
			w.personality(personality)
			w.events.forget()
			w.up()
			var how []string
			for _, e := range w.events.of("web-0") {
				if s, ok := e.(event.StartChosen); ok {
					how = append(how, s.Start)
				}
			}
			require.Equal(t, []string{"ram", "cold"}, how)
			require.Len(t, w.warnings(), 1)
			require.Contains(t, w.warnings()[0], "so it boots")
			require.NotContains(t, w.events.messages(), "error:")
			require.Equal(t, "running", w.status("web-0").State)
			require.Len(t, w.running(), 1)
			w.down()
			_, left := w.templates()
			require.Len(t, left, 1)
			w.personality("")
			require.Equal(t, "ram ready", w.cycle("web-0"))
		})
	}
}

// A guest that cannot be saved runs all the same.
func TestSaveThatFails(t *testing.T) {
	for personality, says := range map[string]string{
		"migrate-fails":    "not kept as a template",
		"no-ignore-shared": "",
	} {
		t.Run(personality, func(t *testing.T) {
			w := newWarmWorld(t, vm("web"))
			w.personality(personality)
			w.up()
			require.Equal(t, "running", w.status("web-0").State)
			_, err := w.exec("web", "true", "")
			require.NoError(t, err)
			whole, left := w.templates()
			require.Empty(t, left)
			if says == "" {
				require.Empty(t, w.warnings())
				require.Len(t, whole, 1)
				require.NoFileExists(t, filepath.Join(whole[0], warm.RAMName))
			} else {
				require.Len(t, w.warnings(), 1)
				require.Contains(t, w.warnings()[0], says)
				require.Empty(t, whole)
			}
			w.down()
			if says == "" {
				require.Equal(t, "disk ready", w.cycle("web-0"))
			}
		})
	}
}

// A store that others could read or change is not used; the command that mends it is told.
func TestUnsafeStore(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world, store string)
		fix   string
	}{
		"readable by others": {func(w *world, store string) { require.NoError(w, os.Chmod(store, 0o755)) }, "chmod 700 "},
		"a symlink": {func(w *world, store string) {
			require.NoError(w, os.Rename(store, store+"-elsewhere"))
			require.NoError(w, os.Symlink(store+"-elsewhere", store))
		}, ""},
		"of someone else": {func(w *world, store string) {
			if os.Geteuid() != 0 {
				w.Skip("only root gives files away")
			}
			require.NoError(w, os.Chown(store, 4711, 4711))
		}, "mv "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, vm("web"))
			w.cycle("web-0")
			c.spoil(w, filepath.Join(w.home, "templates"))
			w.events.forget()
			w.up()
			require.Equal(t, "cold", w.started("web-0"))
			require.Len(t, w.warnings(), 1)
			require.Contains(t, w.events.messages(), c.fix)
			w.down()
		})
	}
}

// What an up that was killed had restored half, or stopped to save, the next one sets right.
func TestUpAfterKilledRestore(t *testing.T) {
	w := newWarmWorld(t, vm("web"))
	w.cycle("web-0")
	w.up()
	s := w.session()
	r := s.VMs["web-0"]
	require.Equal(t, startRAM, r.Start.Kind)
	r.Ready = time.Time{} // as if killed before the guest was woken
	s.VMs["web-0"] = r
	ws, err := workspace.Open(w.layout().Root)
	require.NoError(t, err)
	require.NoError(t, ws.SaveSession(s))
	before := w.running()
	w.up()
	require.NotEqual(t, before, w.running(), "a guest that nobody has woken is not used")
	require.Equal(t, "running", w.status("web-0").State)
	guests := qemutest.Guests(t, w.fakes)
	require.Len(t, guests[len(guests)-1].Wakes, 2, "the rehearsal, and its own")
	w.down()
}

func TestUpAfterKilledSave(t *testing.T) {
	w := newWarmWorld(t, vm("web"))
	w.up()
	ws, err := workspace.Open(w.layout().Root)
	require.NoError(t, err)
	s := w.session()
	r := s.VMs["web-0"]
	r.Start.Saving = true
	s.VMs["web-0"] = r
	require.NoError(t, ws.SaveSession(s))
	w.tell("web-0", "stop")
	require.Equal(t, "paused", w.status("web-0").State)
	before := w.running()
	w.up()
	require.Equal(t, before, w.running())
	require.Equal(t, "running", w.status("web-0").State)
	require.False(t, w.session().VMs["web-0"].Start.Saving)
	w.tell("web-0", "stop") // by the user this time
	require.ErrorContains(t, w.open().Up(t.Context(), UpOptions{}), "paused")
	w.down()
}

// The budget is kept, and what was used last stays.
func TestTemplatesMax(t *testing.T) {
	w := newWarmWorld(t, vm("web"))
	w.cycle("web-0")
	w.configure(patient, vm("web", `cpu = "qemu64"`))
	o := w.options()
	o.TemplatesMax = 1
	require.NoError(t, w.openWith(o).Up(t.Context(), UpOptions{}))
	w.down()
	whole, left := w.templates()
	require.Len(t, whole, 1)
	require.Empty(t, left)
	require.Equal(t, "ram ready", w.cycle("web-0"))
}

// prune -templates removes what no VM runs from.
func TestPruneTemplates(t *testing.T) {
	w := newWarmWorld(t, vm("web"), vm("db"))
	w.cycle("web-0")
	w.up("web")
	whole, _ := w.templates()
	require.Len(t, whole, 2)
	planned, err := w.global(false).Prune(t.Context(), PruneOptions{Templates: true, DryRun: true})
	require.NoError(t, err)
	other := func(r *PruneReport) (paths []string) {
		for _, item := range r.Items {
			if item.Kind == "template" {
				paths = append(paths, item.Path)
			}
		}
		return paths
	}
	require.Len(t, other(planned), 1, "one is in use")
	w.down()
	gone, err := w.global(false).Prune(t.Context(), PruneOptions{Templates: true})
	require.NoError(t, err)
	require.Len(t, other(gone), 2)
	whole, left := w.templates()
	require.Empty(t, whole)
	require.Empty(t, left)
	require.Equal(t, "cold", w.cycle("web-0"))
}

// tell gives a VM's monitor one command.
func (w *world) tell(name, command string) {
	w.Helper()
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(w.Context(), "unix", w.layout().Monitor(name))
	require.NoError(w, err)
	defer conn.Close()
	require.NoError(w, conn.SetDeadline(time.Now().Add(patience)))
	lines := bufio.NewScanner(conn)
	for _, execute := range []string{"qmp_capabilities", command} {
		require.True(w, lines.Scan(), lines.Err())
		_, err := fmt.Fprintf(conn, "{\"execute\":%q}\n", execute)
		require.NoError(w, err)
	}
	require.True(w, lines.Scan(), lines.Err())
}
