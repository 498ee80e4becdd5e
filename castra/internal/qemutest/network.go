package qemutest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
)

// network is the fake's user-mode network: its forwards, and the guest's
// servers behind them.
type network struct {
	m     *machine
	bound []bound
	ssh   *SSHServer
}

// bound is a forward with the port it got. One of tcp and udp is set.
type bound struct {
	rule
	tcp net.Listener
	udp net.PacketConn
}

func listenNetwork(m *machine) (*network, error) {
	n := &network{m: m}
	for i, r := range m.forwards {
		b, err := bind(r)
		if err != nil || i == 0 && m.personality.Has("port-taken") {
			return nil, fmt.Errorf("-netdev %s: Could not set up host forwarding rule '%s'", m.netdev, r.text)
		}
		n.bound = append(n.bound, b)
	}
	return n, nil
}

func bind(r rule) (b bound, err error) {
	b.rule = r
	ctx, listen := context.Background(), net.ListenConfig{}
	if r.protocol == "udp" {
		if b.udp, err = listen.ListenPacket(ctx, "udp4", r.address()); err == nil {
			b.hostPort = b.udp.LocalAddr().(*net.UDPAddr).Port
		}
		return b, err
	}
	if b.tcp, err = listen.Listen(ctx, "tcp4", r.address()); err == nil {
		b.hostPort = b.tcp.Addr().(*net.TCPAddr).Port
	}
	return b, err
}

// serve starts the guest's servers. They are silent until it has booted.
func (n *network) serve(seed seedData) error {
	dir, err := n.m.guestDir()
	if err != nil {
		return err
	}
	for _, b := range n.bound {
		text := fmt.Sprintf("fake guest %s port %d", n.m.guest.hostname(), b.guestPort)
		switch {
		case b.udp != nil:
			go n.serveUDP(b.udp, text)
		case b.guestPort == 22:
			n.ssh, err = serveSSH(b.tcp, SSHOptions{
				HostKeyPEM: seed.HostKey, AuthorizedKeys: seed.Authorized, User: seed.User,
				Dir: dir, Name: n.m.name, Personality: n.m.personality,
			}, n.m.guest, filepath.Join(n.m.dir, stubsDir), n.m.booted)
			if err != nil {
				return err
			}
		default:
			go n.serveHTTP(b.tcp, text)
		}
	}
	return nil
}

func (n *network) serveHTTP(ln net.Listener, text string) {
	_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-n.m.booted:
			_, _ = fmt.Fprintln(w, text)
		case <-r.Context().Done():
		}
	}))
}

func (n *network) serveUDP(conn net.PacketConn, text string) {
	buffer := make([]byte, 64<<10)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		select {
		case <-n.m.booted:
			_, _ = conn.WriteTo([]byte(text+"\n"), from)
		default:
		}
	}
}

// close ends the guest's commands.
func (n *network) close() {
	if n.ssh != nil {
		n.ssh.Close()
	}
}

// table is QEMU 7.2's answer to `info usernet`.
func (n *network) table() string {
	if n.m.netdev == "" {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Hub -1 (%s):\r\n", splitOption(n.m.netdev)["id"])
	b.WriteString("  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n")
	for _, protocol := range []string{"tcp", "udp"} {
		for i, f := range n.bound {
			if f.protocol != protocol {
				continue
			}
			host := f.host
			if host == "" || host == "0.0.0.0" {
				host = "*"
			}
			fmt.Fprintf(&b, "  %s[HOST_FORWARD] %3d %15s %5d %15s %5d %5d %5d\r\n",
				strings.ToUpper(protocol), 10+i, host, f.hostPort, "10.0.2.15", f.guestPort, 0, 0)
		}
	}
	return b.String()
}
