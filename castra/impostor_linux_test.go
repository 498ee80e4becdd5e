package castra

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/bootstrap"
	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemutest"
	"castra.example/castra/castra/internal/soak"
	"castra.example/castra/castra/internal/workspace"
)

// stranger is a server of this process that greets as SSH does and counts what
// it is sent.
type strangerServer struct {
	ln         net.Listener
	met, bytes atomic.Int64
	serving    sync.WaitGroup
}

// listenAsStranger takes addr as soon as it is free.
func listenAsStranger(ctx context.Context, addr string) (*strangerServer, error) {
	s := &strangerServer{}
	for {
		var err error
		if s.ln, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil, err
		}
	}
	s.serving.Go(func() {
		for {
			conn, err := s.ln.Accept()
			if err != nil {
				return
			}
			s.met.Add(1)
			s.serving.Go(func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.9\r\n")
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				n, _ := io.Copy(io.Discard, conn)
				s.bytes.Add(n)
			})
		}
	})
	return s, nil
}

func (s *strangerServer) close() {
	s.ln.Close()
	s.serving.Wait()
}

// record changes what is on record of web-0.
func (w *world) record(change func(*workspace.VM)) {
	w.Helper()
	ws, err := workspace.Open(w.layout().Root)
	require.NoError(w, err)
	s, err := ws.LoadSession()
	require.NoError(w, err)
	r := s.VMs["web-0"]
	change(&r)
	s.VMs["web-0"] = r
	require.NoError(w, ws.SaveSession(s))
}

// waysIn are all ways by which Castra logs in to web-0, which runs.
func (w *world) waysIn() map[string]func() error {
	file := w.write("file", "content")
	unready := func(vm *workspace.VM) { vm.Ready = time.Time{} }
	return map[string]func() error{
		"exec":     func() error { _, err := w.exec("web", "true", ""); return err },
		"ssh":      func() error { return w.open().Shell(w.Context(), "web", Shell{Stdin: strings.NewReader("")}) },
		"copy in":  func() error { return w.open().Copy(w.Context(), file, "web:"+filepath.Join(w.dir, "in")) },
		"copy out": func() error { return w.open().Copy(w.Context(), "web:"+file, filepath.Join(w.dir, "out")) },
		"bootstrap": func() error {
			return w.open().Up(w.Context(), UpOptions{Bootstrap: "always"})
		},
		"wait": func() error {
			w.record(unready)
			err := w.open().Up(w.Context(), UpOptions{})
			return err
		},
	}
}

// eachWay tries all ways on a VM of its own: an up that fails takes it down.
func eachWay(t *testing.T, spoil func(w *world, r *workspace.VM), check func(t *testing.T, w *world, err error)) (tried int) {
	for _, way := range []string{"exec", "ssh", "copy in", "copy out", "bootstrap", "wait"} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t, patient)
			w.configure(patient, w.bootstrapped("web", "true"))
			w.up()
			require.NoError(t, w.waysIn()["exec"]())
			w.record(func(r *workspace.VM) { spoil(w, r) })
			check(t, w, w.waysIn()[way]())
			w.down()
			w.cleanSlate()
		})
		tried++
	}
	return tried
}

// F-4: whoever has the port in QEMU's place is named, and is sent nothing, by
// whichever way.
func TestImpostorAtEveryWay(t *testing.T) {
	s, err := listenAsStranger(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer s.close()
	port := portOf(t, s.ln.Addr().String())
	eachWay(t, func(_ *world, r *workspace.VM) {
		for i := range r.Forwards {
			if r.Forwards[i].HostPort == r.SSH.Port {
				r.Forwards[i].HostPort = port
			}
		}
		r.SSH.Port = port
	}, func(t *testing.T, w *world, err error) {
		require.ErrorAs(t, err, new(*guest.ImpostorError))
		require.ErrorContains(t, err, fmt.Sprintf("127.0.0.1:%d is not the guest's: pid ", port))
		if !as[*bootstrap.StepError](err) { // which has a status of its own
			require.Equal(t, exitUnavailable, exitStatus(err))
		}
		if status := w.status("web-0"); status.Posture != nil {
			require.Contains(t, status.Posture.Listener, "pid ")
			require.Contains(t, strings.Join(status.Posture.Weaker, "\n"), "listens where SSH is reached")
		}
	})
	require.Positive(t, s.met.Load())
	require.Zero(t, s.bytes.Load())
}

// F-5: the host key on record is the only one that is accepted, by whichever way.
func TestHostKeyAtEveryWay(t *testing.T) {
	eachWay(t, func(w *world, r *workspace.VM) { _, r.SSH.HostKey = qemutest.NewKey(w) }, func(t *testing.T, _ *world, err error) {
		stranger(t, err)
	})
}

// F-4: a QEMU that is killed while verbs log in, and an impostor that takes its
// port the moment it is free.
func TestImpostorRacesSoak(t *testing.T) {
	races := soak.N(3, 100)
	w := newWorld(t, patient, vm("web"))
	met, bytes, won := int64(0), int64(0), 0
	for range races {
		w.up()
		r := w.session().VMs["web-0"]
		to, err := login(r)
		require.NoError(t, err)
		ctx, stop := context.WithTimeout(t.Context(), patience)
		var calling sync.WaitGroup
		for range 2 {
			calling.Go(func() {
				for ctx.Err() == nil {
					if c, err := guest.Dial(ctx, to); err == nil {
						c.Close()
					}
				}
			})
			calling.Go(func() {
				for ctx.Err() == nil {
					if c, err := guest.Wait(ctx, to, nil); err == nil {
						c.Close()
					}
				}
			})
		}
		calling.Go(func() {
			for ctx.Err() == nil {
				_ = w.open().Exec(ctx, "web", Command{Line: "true"})
			}
		})
		w.kill("web-0")
		s, err := listenAsStranger(ctx, to.Addr)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return s.met.Load() >= 10 }, patience, poll)
		stop()
		calling.Wait()
		s.close()
		met, bytes, won = met+s.met.Load(), bytes+s.bytes.Load(), won+1
		w.down()
	}
	w.cleanSlate()
	soak.AtLeast(t, "F-4", "races of logins with an impostor on the port of a killed QEMU", 100, float64(won))
	soak.AtMost(t, "F-4", fmt.Sprintf("bytes sent to it over %d connections", met), 0, float64(bytes))
}
