package castra

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/image"
	"castra.example/castra/castra/internal/qemutest"
)

// imageServer serves one image over TLS, with a certificate that this process trusts.
type imageServer struct {
	*httptest.Server
	content []byte
	bodies  atomic.Int32 // sent
}

// trust makes this process trust the servers of httptest. The system's roots are read once a process, when they are first needed.
var trust sync.Once

func (w *world) serve(content []byte) *imageServer {
	w.Helper()
	s := &imageServer{content: content}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			s.bodies.Add(1)
		}
		http.ServeContent(out, r, "", time.Unix(1, 0), bytes.NewReader(s.content))
	}))
	s.StartTLS()
	w.Cleanup(s.Close)
	trust.Do(func() {
		file := filepath.Join(w.TempDir(), "ca.pem")
		require.NoError(w, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
		w.Setenv("SSL_CERT_FILE", file)
		request, err := http.NewRequestWithContext(w.Context(), http.MethodHead, s.URL, nil)
		require.NoError(w, err)
		answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
		require.NoError(w, err)
		require.NoError(w, answer.Body.Close())
	})
	return s
}

func sha512Of(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512:" + hex.EncodeToString(sum[:])
}

// fetched is a VM that boots from the server's image.
func (s *imageServer) vm(role string, lines ...string) string {
	text := strings.Replace(vm(role, lines...), `base_image = "base.qcow2"`, fmt.Sprintf("base_image = %q\nchecksum = %q", s.URL+"/disk.qcow2", sha512Of(s.content)), 1)
	return text
}

// Two projects and eight VMs, one transfer. What has gone bad is fetched once more, and what is here needs no network.
func TestImageIsFetchedOnce(t *testing.T) {
	w := newWorld(t, patient)
	content, err := os.ReadFile(w.base)
	require.NoError(t, err)
	server := w.serve(content)
	w.configure(patient, server.vm("web", "count = 4"))
	other := *w
	other.dir = filepath.Join(filepath.Dir(w.dir), "other")
	require.NoError(t, os.Mkdir(other.dir, 0o700))
	other.configure(patient, server.vm("db", "count = 4"))
	var both sync.WaitGroup
	failures := make([]error, 2)
	for i, p := range []*Project{w.open(), other.open()} {
		both.Go(func() { failures[i] = p.Up(t.Context(), UpOptions{}) })
	}
	both.Wait()
	require.NoError(t, failures[0])
	require.NoError(t, failures[1])
	require.Len(t, w.running(), 8)
	require.EqualValues(t, 1, server.bodies.Load())
	base := w.session().VMs["web-0"].Overlay.BaseImage
	require.Equal(t, base, other.session().VMs["db-3"].Overlay.BaseImage)
	require.True(t, strings.HasPrefix(base, filepath.Join(w.home, "images")+"/"), base)
	links, err := filepath.Glob(filepath.Join(w.layout().Images(), "*.qcow2"))
	require.NoError(t, err)
	require.Len(t, links, 1)
	linked, err := os.ReadFile(links[0])
	require.NoError(t, err)
	require.Equal(t, content, linked)
	w.down()
	other.down()

	damage(t, base)
	w.up()
	w.down()
	require.EqualValues(t, 2, server.bodies.Load())
	require.Contains(t, fmt.Sprint(w.events.all()), "downloading again, since the one here is damaged")
	healed, err := os.ReadFile(base)
	require.NoError(t, err)
	require.Equal(t, content, healed)

	server.Close()
	w.up()
	w.down()
	list, err := ListImages(t.Context(), w.options())
	require.NoError(t, err)
	last := list.Images[len(list.Images)-1]
	require.Equal(t, base, last.Cached)
	require.Equal(t, sha512Of(content), last.Digest)
}

// damage flips a bit of a file that may not be written to.
func damage(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.Chmod(path, 0o600))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[len(b)/2] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o600))
}

func TestImageTroubles(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(w *world, s *imageServer) string // gives the [[vms]] table
		says   string
		status int
	}{
		"another digest": {func(_ *world, s *imageServer) string {
			table := s.vm("web")
			s.content = append([]byte{0}, s.content...)
			return table
		}, "digest", exitConfig},
		"not found": {func(w *world, s *imageServer) string {
			s.Config.Handler = http.NotFoundHandler()
			return s.vm("web")
		}, "404", exitUnavailable},
		"nobody there": {func(_ *world, s *imageServer) string {
			s.Close()
			return s.vm("web")
		}, "refused", exitUnavailable},
		"names a file of the host": {func(_ *world, s *imageServer) string {
			s.content = append([]byte{}, s.content...)
			copy(s.content[8:], []byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 11})
			copy(s.content[512:], "/etc/shadow")
			return s.vm("web")
		}, "backing file", exitConfig},
		"no such name": {func(*world, *imageServer) string { return "[[vms]]\nname = \"web\"\nimage = \"debian-13x\"\n" }, `did you mean "debian-13"`, exitConfig},
		"digest of a file": {func(*world, *imageServer) string {
			return vm("web", fmt.Sprintf("checksum = \"sha256:%064x\"", 1))
		}, "digest", exitConfig},
		"smaller disk": {func(w *world, _ *imageServer) string {
			big := filepath.Join(w.dir, "big.qcow2")
			qemutest.WriteImage(w.T, big, 1<<30)
			return strings.Replace(vm("web", `disk = "1 MiB"`), "base.qcow2", "big.qcow2", 1)
		}, "smaller than base image", exitConfig},
		"user_data of no kind": {func(w *world, _ *imageServer) string {
			w.write("user-data", "hello")
			return vm("web", `user_data = "user-data"`)
		}, "user_data", exitConfig},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, patient)
			content, err := os.ReadFile(w.base)
			require.NoError(t, err)
			server := w.serve(content)
			w.configure(patient, c.spoil(w, server))
			err = w.open().Up(t.Context(), UpOptions{})
			require.Error(t, err)
			require.Contains(t, exit(err).Error(), c.says)
			require.Equal(t, c.status, exitStatus(err), err)
			require.NotEmpty(t, hint(err), err)
			require.Empty(t, w.running())
		})
	}
}

// The default image is the catalogue's, or a file at its place that has its digest beside it.
func TestDefaultImage(t *testing.T) {
	w := newWorld(t, patient, strings.Replace(vm("web", `firmware = "bios"`), `base_image = "base.qcow2"`, "", 1))
	content, err := os.ReadFile(w.base)
	require.NoError(t, err)
	server := w.serve(content)
	o := w.options()
	o.ImageMirror = server.URL
	up := func() error { return w.openWith(o).Up(t.Context(), UpOptions{}) }

	plan, err := w.openWith(o).Plan(t.Context(), UpOptions{})
	require.NoError(t, err)
	require.Empty(t, plan.VMs[0].BaseImage)
	require.NoDirExists(t, w.home, "a plan makes nothing")
	require.NoError(t, func() error { // makes the workspace
		own := o
		own.BaseImage = w.base
		return w.openWith(own).Up(t.Context(), UpOptions{})
	}())
	w.down()
	err = up()
	require.ErrorContains(t, err, "alpine-3.23", "what the mirror has is another file")
	require.Equal(t, exitConfig, exitStatus(err))
	require.EqualValues(t, 1, server.bodies.Load())

	place := w.layout().DefaultImage()
	sidecar := strings.TrimSuffix(place, ".qcow2") + ".sha512"
	require.NoError(t, os.MkdirAll(filepath.Dir(place), 0o700))
	require.NoError(t, os.WriteFile(place, content, 0o600))
	err = up()
	require.ErrorContains(t, err, place, "nobody knows where it is from")
	require.NotEmpty(t, hint(err))
	for _, garbage := range []string{"", "\n", "sha512:00", "<html>"} {
		require.NoError(t, os.WriteFile(sidecar, []byte(garbage), 0o600))
		require.ErrorContains(t, up(), sidecar, "%q verifies nothing", garbage)
	}
	require.NoError(t, os.WriteFile(sidecar, []byte(strings.ToUpper(sha512Of(append(content, 0)))), 0o600))
	require.ErrorContains(t, up(), "digest")
	require.NoError(t, os.WriteFile(sidecar, []byte(strings.ToUpper(strings.TrimPrefix(sha512Of(content), "sha512:"))+"  alpine-minimal.qcow2\r\n"), 0o600))
	require.NoError(t, up())
	require.Equal(t, place, w.session().VMs["web-0"].Overlay.BaseImage)
	w.down()
	require.EqualValues(t, 1, server.bodies.Load(), "it is not fetched")
}

func TestImagesList(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	list, err := ListImages(t.Context(), w.options())
	require.NoError(t, err)
	require.NoDirExists(t, w.home)
	require.Len(t, list.Images, 2+len(image.Catalogue()))
	var text bytes.Buffer
	require.NoError(t, list.write(&text))
	for line := range strings.Lines(text.String()) {
		require.LessOrEqual(t, len(strings.TrimRight(line, "\n")), 80, line)
	}
	require.Contains(t, text.String(), "alpine-3.23 (default)")
	b, err := json.Marshal(list)
	require.NoError(t, err)
	require.Contains(t, string(b), `"digest":"sha512:849196e2`)
}

// A guest of another architecture has its own QEMU, is emulated, and boots by UEFI.
func TestForeignGuest(t *testing.T) {
	if goarch != "amd64" {
		t.Skip("the test is written for amd64")
	}
	w := newWarmWorld(t, vm("web", `arch = "aarch64"`), vm("db"))
	w.up()
	require.Equal(t, "templates are of guests of this computer's architecture", w.status("web-0").StartReason)
	require.FileExists(t, w.layout().Vars("web-0"))
	require.NoFileExists(t, w.layout().Vars("db-0"))
	plan, err := w.open().Plan(t.Context(), UpOptions{})
	require.NoError(t, err)
	require.Contains(t, plan.VMs[0].Command[0], "qemu-system-aarch64")
	require.Contains(t, strings.Join(plan.VMs[0].Command, " "), "virt")
	w.down()
	require.NoFileExists(t, w.layout().Vars("web-0"))
	o := w.options()
	o.Accelerator = "kvm"
	_, err = w.openWith(o).Plan(t.Context(), UpOptions{VMs: []string{"web"}})
	require.ErrorContains(t, err, "accelerator kvm")
}

// The guest's own configuration belongs to its being ready.
func TestCloudInit(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	program := func(script string) {
		path := filepath.Join(w.fakes, "cloud-init")
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700)) //nolint:gosec // a program
	}
	program("[ \"$2\" = --wait ] && exit 0\nexit 9")
	w.up()
	w.down()
	program("[ \"$2\" = --long ] && echo 'status: error' && echo 'detail: runcmd failed'; exit 1")
	err := w.open().Up(t.Context(), UpOptions{})
	require.ErrorContains(t, err, "cloud-init failed: status: error detail: runcmd failed")
	require.Contains(t, hint(err), "user_data")
	require.Empty(t, w.running(), "a guest that is not as configured is not up")
	program("[ \"$2\" = --long ] && echo 'recoverable_errors: deprecated'; exit 2")
	w.up()
	require.Contains(t, fmt.Sprint(w.events.all()), "cloud-init ended with warnings: recoverable_errors: deprecated")
	w.down()
}
