package host

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
)

// Owner is a process that has a port.
type Owner struct {
	PID  int // 0: none is known
	Name string
}

// String is as "pid 123 (nginx)"; "" where none is known.
func (o Owner) String() string {
	if o.PID == 0 {
		return ""
	}
	return fmt.Sprintf("pid %d (%s)", o.PID, o.Name)
}

// tryListen listens for a moment.
func tryListen(ctx context.Context, protocol, ip string, port int) error {
	addr := net.JoinHostPort(ip, strconv.Itoa(port))
	family := ""
	if net.ParseIP(ip).To4() != nil {
		family = "4" // else all addresses would be those of IPv6 too
	}
	var c io.Closer
	var err error
	if protocol == "udp" {
		c, err = new(net.ListenConfig).ListenPacket(ctx, "udp"+family, addr)
	} else {
		c, err = new(net.ListenConfig).Listen(ctx, "tcp"+family, addr)
	}
	if err != nil {
		return err
	}
	return c.Close()
}
