package config

import (
	"fmt"
	"net/netip"
	"slices"
)

const (
	maxForwards = 256
	maxPort     = 65535

	loopback  = "127.0.0.1"
	allHostIP = "0.0.0.0"
)

// forwards reads rules that the given number of replicas have.
func (l *loader) forwards(vm *table, replicas int) []Forward {
	var all []Forward
	for _, t := range vm.list("port_forwards", maxForwards) {
		if t.missing("guest") {
			t.fault("guest", "it is missing", "write the guest's port, from 1 to 65535")
		}
		before := len(l.f.found) + l.f.more
		f := Forward{
			HostIP: l.hostIP(t), HostPort: t.integer("host", 0, 0, maxPort), GuestPort: t.integer("guest", 0, 1, maxPort),
			Protocol: t.oneOf("protocol", "tcp", "tcp", "udp"), Line: l.f.lines.of(t.path),
		}
		if replicas > 1 && f.HostPort != 0 {
			t.fault("host", fmt.Sprintf("%d replicas cannot share port %d", replicas, f.HostPort),
				"leave host out: each replica gets a free port, and mage ports tells which; or give each its own under [[vms.instances]]")
		}
		if len(l.f.found)+l.f.more > before {
			f.HostPort = 0 // a faulty rule is in nobody's way
		}
		t.done()
		all = append(all, f)
	}
	return all
}

// withSSH adds the forward to a VM's SSH, unless it is declared or SSH is
// reached otherwise.
func withSSH(all []Forward, ssh SSH) []Forward {
	declared := func(f Forward) bool { return f.Protocol == "tcp" && f.GuestPort == ssh.Port }
	if ssh.Host != "" || slices.ContainsFunc(all, declared) {
		return all
	}
	return append(all, Forward{HostIP: loopback, GuestPort: ssh.Port, Protocol: "tcp"})
}

// hostIP takes a literal address that QEMU can listen on.
func (l *loader) hostIP(t *table) string {
	s, ok := t.str("host_ip")
	if !ok {
		return loopback
	}
	ip, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		t.fault("host_ip", fmt.Sprintf("%q is no IP address, and names are not looked up", shorten(s)), "write an IPv4 address of this computer, such as 127.0.0.1")
	case !ip.Is4():
		t.fault("host_ip", fmt.Sprintf("%s is an IPv6 address, and QEMU forwards from IPv4 alone", ip), "write an IPv4 address of this computer, such as 127.0.0.1")
	case !ip.IsLoopback():
		l.warn(t.at("host_ip"), fmt.Sprintf("other computers can reach the forward on %s", ip), "leave host_ip out to stay on 127.0.0.1")
		return s
	default:
		return s
	}
	return loopback
}

// checkForwards refuses two rules for one port of the host.
func (l *loader) checkForwards() {
	type port struct {
		protocol string
		number   int
	}
	type rule struct {
		Forward
		path string
	}
	total := 0
	for _, vm := range l.p.VMs {
		total += len(vm.Forwards)
	}
	if total > maxForwards {
		l.f.add("vms", fmt.Sprintf("%d forwards with those of all replicas and to SSH; at most %d", total, maxForwards), "declare fewer")
		return
	}
	taken := map[port][]rule{}
	for i, vm := range l.p.VMs {
		for j, f := range vm.Forwards {
			if f.HostPort == 0 {
				continue
			}
			r := rule{f, element(l.places[i].owner("port_forwards")+".port_forwards", j)}
			key := port{f.Protocol, f.HostPort}
			for _, other := range taken[key] {
				if f.HostIP == other.HostIP || f.HostIP == allHostIP || other.HostIP == allHostIP {
					l.f.add(r.path+".host", fmt.Sprintf("%s port %d is taken by %s on line %d", f.Protocol, f.HostPort, other.path, other.Line),
						"write another port, or leave host out to have a free one chosen")
				}
			}
			taken[key] = append(taken[key], r)
		}
	}
}
