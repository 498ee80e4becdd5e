package castra

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"castra.example/castra/castra/internal/guest"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/workspace"
)

// listener asks who takes the connections that lead to the VM's SSH.
func listener(r workspace.VM) func() error {
	return func() error {
		switch who := listenerOf(r); who {
		case listenerQEMU, listenerUnknown:
			return nil
		case listenerNobody:
			return host.ErrNobody
		default:
			return &guest.ImpostorError{Addr: addrOf(r), Owner: who}
		}
	}
}

const (
	listenerQEMU    = "QEMU"
	listenerUnknown = "unknown"
	listenerNobody  = "nobody"
)

func addrOf(r workspace.VM) string { return net.JoinHostPort(r.SSH.Host, strconv.Itoa(r.SSH.Port)) }

// listenerOf names who takes the connections that lead to the VM's SSH. It
// cannot be seen where castra.toml leads there by another way than QEMU's
// forwards, nor on macOS; there the host key alone tells the guest from others.
func listenerOf(r workspace.VM) string {
	to := addrOf(r)
	addr, err := netip.ParseAddrPort(to)
	led := slices.ContainsFunc(r.Forwards, func(f workspace.Forward) bool { return f.Protocol == "tcp" && reach(f) == to })
	if err != nil || !led || r.PID == 0 {
		return listenerUnknown
	}
	switch ours, err := host.Serves(r.PID, addr); {
	case errors.Is(err, host.ErrNobody):
		return listenerNobody
	case err != nil:
		return listenerUnknown
	case ours:
		return listenerQEMU
	default:
		return cmp.Or(host.PortOwner("tcp", addr.Addr().String(), r.SSH.Port).String(), "another process")
	}
}
