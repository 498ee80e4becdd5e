package config

import (
	"fmt"
	"net/netip"
)

const loopback = "127.0.0.1"

// forwards reads the rules of a VM, and adds the one to its SSH where none is
// declared.
func (l *loader) forwards(tables []*table, ssh, count int) []Forward {
	var all []Forward
	toSSH := false
	for _, t := range tables {
		f := Forward{
			HostPort: t.integer("host", 0, 0, maxPort), GuestPort: t.integer("guest", 0, 1, maxPort),
			Protocol: t.oneOf("protocol", "tcp", "udp"), HostIP: hostIP(t), Line: l.f.lines.of(t.path),
		}
		if _, ok := t.m["guest"]; !ok {
			t.fault("guest", "it is missing", "write the guest's port")
		}
		if count > 1 && f.HostPort != 0 {
			t.fault("host", fmt.Sprintf("%d replicas cannot share the host's port %d", count, f.HostPort), "leave out host: each gets a free port, and mage ports tells which")
		}
		t.done()
		toSSH = toSSH || f.Protocol == "tcp" && f.GuestPort == ssh
		all = append(all, f)
	}
	if !toSSH {
		all = append([]Forward{{HostIP: loopback, GuestPort: ssh, Protocol: "tcp"}}, all...)
	}
	return all
}

func hostIP(t *table) string {
	s := t.str("host_ip", loopback)
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		t.fault("host_ip", fmt.Sprintf("%q is no IP address", shorten(s)), "write an address of this computer, such as 127.0.0.1; names are not looked up")
		return loopback
	}
	if !ip.Is4() {
		t.fault("host_ip", "QEMU forwards IPv4 alone", "write an IPv4 address")
		return loopback
	}
	return ip.String()
}

// checkForwards refuses two rules for one port of the host.
func (l *loader) checkForwards() {
	type port struct {
		protocol string
		number   int
	}
	taken := map[port][]Forward{}
	total := 0
	for _, vm := range l.p.VMs {
		total += len(vm.Forwards)
		for _, f := range vm.Forwards {
			if f.HostPort == 0 {
				continue
			}
			key := port{f.Protocol, f.HostPort}
			for _, other := range taken[key] {
				if other.Line != f.Line && overlap(other.HostIP, f.HostIP) {
					l.f.addAt(f.Line, "vms.port_forwards.host", fmt.Sprintf("port %d/%s of the host is taken by the forward of line %d", f.HostPort, f.Protocol, other.Line),
						"give another port, or leave out host to have a free one chosen")
				}
			}
			taken[key] = append(taken[key], f)
		}
	}
	if total > maxForwards {
		l.f.add("vms", fmt.Sprintf("%d forwards; at most %d", total, maxForwards), "declare fewer")
	}
}

// overlap tells that two addresses cannot both be listened on.
func overlap(a, b string) bool {
	const all = "0.0.0.0"
	return a == b || a == all || b == all
}
