package castra

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/qemutest"
)

// F-5 to F-9: status tells what is so, and says where it is weaker than usual.
func TestPosture(t *testing.T) {
	w := newWorld(t, patient, vm("web"), vm("in", `network = "isolated"`), vm("out", "[[vms.port_forwards]]\nguest = 80\nhost_ip = \"0.0.0.0\""))
	w.personality("in-0:open-login")
	w.up()
	require.Contains(t, w.messages(), "other computers can reach the forward on 0.0.0.0", "up warns")
	require.Contains(t, w.messages(), "open login: its guest lets root in without a key")
	if os.Geteuid() == 0 {
		require.Contains(t, w.messages(), asRoot)
	}

	sandbox, listener := "unknown", listenerUnknown
	if runtime.GOOS == "linux" {
		sandbox, listener = "seccomp", listenerQEMU
	}
	for vm, network := range map[string]string{"web-0": "user", "in-0": "isolated", "out-0": "user"} {
		p := w.status(vm).Posture
		require.NotNil(t, p)
		require.Equal(t, sandbox, p.Sandbox, vm)
		require.Equal(t, listener, p.Listener, vm)
		require.Equal(t, network, p.Network, vm)
		require.Equal(t, "run", p.HostKey, vm)
		require.Equal(t, vm == "in-0", p.OpenLogin, vm)
		require.Equal(t, vm == "out-0", len(p.Exposed) == 1, vm)
	}
	text := w.statusText()
	require.Contains(t, text, "open login: its guest lets root in without a key")
	require.Contains(t, text, "other computers can reach 0.0.0.0:")
	if os.Geteuid() != 0 {
		require.NotContains(t, text, "\nweb-0: ", "nothing of it is weaker than usual")
	}
	w.down()
	require.Nil(t, w.status("web-0").Posture)
	w.cleanSlate()
}

// A QEMU that is not held in is told, whatever it was asked for.
func TestPostureWithoutSandbox(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("seccomp is Linux's")
	}
	w := newWorld(t, patient, vm("web"))
	w.personality("no-sandbox")
	w.up()
	require.Equal(t, "none", w.status("web-0").Posture.Sandbox)
	require.Contains(t, w.statusText(), "web-0: QEMU is not held in by seccomp")
	w.down()
}

// With templates the host key is the role's, and status says so.
func TestPostureOfATemplate(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.warm = ""
	for range 2 {
		w.up()
		require.Equal(t, "role", w.status("web-0").Posture.HostKey)
		w.down()
	}
}

func (w *world) messages() string { return w.events.messages() }

func (w *world) statusText() string {
	w.Helper()
	s, err := w.open().Status(w.Context())
	require.NoError(w, err)
	var b bytes.Buffer
	require.NoError(w, s.write(&b))
	return b.String()
}

// Whoever has another key, as another user of this computer has, is refused by
// a guest that asks for one. F-9.
func TestStrangersKeyIsRefused(t *testing.T) {
	w := newWorld(t, patient, vm("web"))
	w.up()
	to, err := login(w.session().VMs["web-0"])
	require.NoError(t, err)
	to.PrivateKey, _ = qemutest.NewKey(t)
	_, err = guest.Dial(t.Context(), to)
	require.ErrorAs(t, err, new(*guest.LoginError))
	st, err := os.Stat(w.session().VMs["web-0"].SSH.Identity)
	require.NoError(t, err)
	require.Equal(t, "-rw-------", fmt.Sprint(st.Mode()), "and the right one is nobody else's to read")
	w.down()
	require.False(t, strings.Contains(w.statusText(), "open login"))
}
