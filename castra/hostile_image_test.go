package castra

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
)

// recording puts, before the fakes in PATH, programs that write down how they were called. What was called with a path of this
// world is what it gives.
func (w *world) recording() (calls func() []string) {
	w.Helper()
	dir := w.TempDir()
	log := filepath.Join(dir, "calls")
	for _, program := range []string{"qemu-system-x86_64", "qemu-system-aarch64", "qemu-img", "qemu-io", "qemu-nbd"} {
		script := fmt.Sprintf("#!/bin/sh\nprintf '%%s ' \"${0##*/}\" \"$@\" >> %s\necho >> %s\nexec %s \"$@\"\n", log, log, filepath.Join(w.fakes, program))
		require.NoError(w, os.WriteFile(filepath.Join(dir, program), []byte(script), 0o700))
	}
	w.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return func() (ours []string) {
		data, _ := os.ReadFile(log)
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, w.dir) || strings.Contains(line, w.home) {
				ours = append(ours, line)
			}
		}
		return ours
	}
}

// Fault D6, failure bank 34: a hostile image is refused before QEMU or qemu-img is given anything, wherever it comes from.
func TestHostileImagesNeverReachQEMUSoak(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	calls := w.recording()
	secret := w.write("secret", "canary")
	all := qemutest.HostileImages(secret)
	refused := 0
	for i, c := range all {
		if i%soak.N(4, 1) != 0 {
			continue
		}
		require.NoError(t, os.WriteFile(w.base, c.Data, 0o600))
		server := w.serve(c.Data)
		ways := map[string]func() *Project{
			"base_image": func() *Project { w.configure(patient, vm("web")); return w.open() },
			"CASTRA_QCOW": func() *Project {
				w.configure(patient, strings.Replace(vm("web"), `base_image = "base.qcow2"`, "", 1))
				o := w.options()
				o.BaseImage = w.base
				return w.openWith(o)
			},
			"its digest": func() *Project {
				w.configure(patient, vm("web", fmt.Sprintf("checksum = %q", sha512Of(c.Data))))
				return w.open()
			},
		}
		if len(c.Data) > 0 && !strings.HasPrefix(c.Says, "compressed") {
			ways["URL"] = func() *Project { w.configure(patient, server.vm("web")); return w.open() }
		}
		for way, open := range ways {
			err := open().Up(t.Context(), UpOptions{})
			var fe *image.FormatError
			require.ErrorAs(t, err, &fe, "%s by %s", c.Name, way)
			require.ErrorContains(t, err, c.Says, "%s by %s", c.Name, way)
			require.NotEmpty(t, hint(err))
			require.Empty(t, calls(), "%s by %s", c.Name, way)
			require.NoFileExists(t, w.overlay("web-0"))
		}
		server.Close()
		refused++
	}
	require.Empty(t, w.running())

	qemutest.WriteImage(t, w.base, 1<<20)
	w.configure(patient, vm("web"))
	w.up()
	require.NotEmpty(t, calls(), "a good image does reach QEMU")
	w.down()
	soak.AtLeast(t, "D6", "hostile images refused with no call of QEMU or qemu-img", 30, float64(refused))
}

// What it costs to hash an image that is the user's own is told, as it is of one of the store.
func TestHashingIsTold(t *testing.T) {
	w := newWorld(t, patient)
	content := mustRead(t, w.base)
	w.configure(patient, vm("web", fmt.Sprintf("checksum = %q", sha512Of(content))))
	w.up()
	w.down()
	var told []event.ImageVerified
	for _, r := range w.events.all() {
		if e, ok := r.Event.(event.ImageVerified); ok {
			e.ElapsedMS = 0
			told = append(told, e)
		}
	}
	require.Equal(t, []event.ImageVerified{{Image: "base.qcow2", Path: w.base, Digest: sha512Of(content), Bytes: int64(len(content))}}, told)
}
