package castra

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"

	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/workspace"
)

// Posture is what stands between the guest of a VM that runs and everybody
// else: what can be seen of it now, beside what is on record of its start.
type Posture struct {
	// Sandbox is "seccomp" where the kernel holds QEMU to a list of system
	// calls and lets it gain no rights, "none", or "unknown".
	Sandbox string `json:"sandbox"`
	// Root: QEMU has the rights of root.
	Root bool `json:"root"`
	// Network is "user", by which the guest gets out, also to what listens on
	// this computer's loopback, or "isolated".
	Network string `json:"network"`
	// Exposed are the forwards that other computers reach.
	Exposed []Forward `json:"exposed"`
	// HostKey is how the guest came by the host key that is pinned: "run", made
	// for this run, or "role", that of all runs of its role, as templates hold it.
	HostKey string `json:"host_key"`
	// Listener is who takes the connections that lead to SSH: "QEMU", "nobody",
	// "unknown" where that cannot be seen, or another process by its name.
	Listener string `json:"listener"`
	// OpenLogin: the guest let us in without asking for the key.
	OpenLogin bool `json:"open_login"`
	// Weaker says what of this is weaker than it is by default, a sentence each.
	Weaker []string `json:"weaker"`
}

// asRoot is what is to be said of a QEMU with the rights of root.
const asRoot = "QEMU runs as root, so a guest that breaks out of it is root on this computer"

// posture looks at a VM that runs.
func (p *Project) posture(pid int, r workspace.VM) *Posture {
	s := &Posture{Sandbox: "unknown", Network: r.Settings["network"], Exposed: []Forward{}, HostKey: "run", OpenLogin: r.SSH.Open, Weaker: []string{}}
	c, err := host.Confined(pid)
	if err == nil {
		s.Sandbox, s.Root = "none", c.UID == 0
		if c.Filtered && c.NoNewPrivileges {
			s.Sandbox = "seccomp"
		}
	}
	for _, f := range r.Forwards {
		if f := Forward(f); !net.ParseIP(f.HostIP).IsLoopback() {
			s.Exposed = append(s.Exposed, f)
		}
	}
	if key, err := readKey(p.layout().HostKey(r.Role)); err == nil && strings.TrimSpace(key.Public) == strings.TrimSpace(r.SSH.HostKey) {
		s.HostKey = "role"
	}
	s.Listener = listenerOf(r)
	s.Weaker = s.weaker(r)
	return s
}

func (s *Posture) weaker(r workspace.VM) []string {
	weaker := []string{}
	if s.Sandbox == "none" && runtime.GOOS == "linux" {
		weaker = append(weaker, "QEMU is not held in by seccomp")
	}
	if s.Root {
		weaker = append(weaker, asRoot)
	}
	if len(s.Exposed) > 0 {
		var which []string
		for _, f := range s.Exposed {
			which = append(which, f.String())
		}
		weaker = append(weaker, "other computers can reach "+strings.Join(which, ", "))
	}
	if s.OpenLogin {
		weaker = append(weaker, openLogin(r))
	}
	if !slices.Contains([]string{listenerQEMU, listenerUnknown, listenerNobody}, s.Listener) {
		weaker = append(weaker, fmt.Sprintf("%s listens where SSH is reached, and not this VM's QEMU", s.Listener))
	}
	return weaker
}

func openLogin(r workspace.VM) string {
	return fmt.Sprintf("open login: its guest lets %s in without a key", r.SSH.User)
}

// weaknesses tells what is weaker than by default, VMs that are alike together.
func (s *ProjectStatus) weaknesses() []string {
	var said []string
	for _, vm := range s.VMs {
		if vm.Posture != nil && len(vm.Posture.Weaker) > 0 {
			said = append(said, strings.Join(vm.Posture.Weaker, "; "))
		}
	}
	slices.Sort(said)
	var lines []string
	for _, text := range slices.Compact(said) {
		var vms []string
		for _, vm := range s.VMs {
			if vm.Posture != nil && strings.Join(vm.Posture.Weaker, "; ") == text {
				vms = append(vms, vm.Name)
			}
		}
		lines = append(lines, strings.Join(vms, ", ")+": "+text)
	}
	return lines
}
