package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	goqmp "github.com/digitalocean/go-qemu/qmp"
)

// defaultBound limits Dial and Execute when their context has no deadline.
const defaultBound = 5 * time.Second

// Client is a connection to one QEMU monitor, safe for concurrent use.
// Commands run one at a time.
type Client struct {
	path    string
	peer    int
	relay   *relay
	monitor *goqmp.SocketMonitor
	turn    chan struct{} // holds one token while a command runs
	lastID  uint64        // guarded by turn
	close   sync.Once
}

// Dial connects to the monitor socket at path and completes the QMP handshake.
// It gives up when ctx ends, or after 5 s if ctx has no deadline.
//
// A path that is no socket is refused without touching it. The error wraps
// [ErrBusy] if the connection was made but QEMU never greeted. On Linux, paths
// longer than a socket address allows work as well; elsewhere they end in a
// [*PathTooLongError].
func Dial(ctx context.Context, path string) (*Client, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	c, err := dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("monitor %s: %w", path, err)
	}
	return c, nil
}

func dial(ctx context.Context, path string) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	server, peer, err := connect(ctx, path)
	if err != nil {
		return nil, err
	}
	lines := newLineReader(server)
	greeting, err := readGreeting(ctx, server, lines)
	if err != nil {
		server.Close()
		return nil, err
	}
	inner, monitor, err := privateMonitor(ctx)
	if err != nil {
		server.Close()
		return nil, fmt.Errorf("private end: %w", err)
	}
	c := &Client{
		path: path, peer: peer, monitor: monitor,
		relay: startRelay(server, inner, lines),
		turn:  make(chan struct{}, 1),
	}
	if err := c.handshake(ctx, greeting); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) handshake(ctx context.Context, greeting []byte) error {
	var connected error
	reply, err := c.relay.call(ctx, "", func() error {
		connected = c.relay.deliver(greeting)
		if connected == nil {
			connected = c.monitor.Connect()
		}
		return connected
	})
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if reply.Error != nil {
		return &Error{Command: "qmp_capabilities", Class: reply.Error.Class, Desc: reply.Error.Desc}
	}
	if connected != nil { // answered, and the relay ended before the answer was passed on
		return fmt.Errorf("handshake: %w", c.relay.fail(connected))
	}
	return nil
}

// Peer is the pid of the process that serves the socket, 0 where the system
// does not tell.
func (c *Client) Peer() int { return c.peer }

// Execute runs one command and decodes what it returns into result, unless
// result is nil. args is encoded as the command's arguments, unless nil.
// Execute gives up when ctx ends, or after 5 s if ctx has no deadline.
//
// A refusal by QEMU is an [*Error]. A command that was sent and got no answer,
// for want of time or for any other reason, ends the connection, because a later
// reply could be its own: every following call fails with the first cause.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.execute(ctx, command, args, result); err != nil {
		if refused := (*Error)(nil); errors.As(err, &refused) {
			return refused
		}
		return fmt.Errorf("%s on monitor %s: %w", command, c.path, err)
	}
	return nil
}

func (c *Client) execute(ctx context.Context, command string, args, result any) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("another command is running: %w", ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.lastID++
	id := "castra-" + strconv.FormatUint(c.lastID, 10)
	line, err := json.Marshal(request{Execute: command, Arguments: args, ID: id})
	if err != nil {
		return fmt.Errorf("encode arguments: %w", err)
	}
	reply, err := c.relay.call(ctx, id, func() error {
		_, err := c.monitor.Run(append(line, '\n'))
		return err
	})
	if err != nil {
		return err
	}
	if reply.Error != nil {
		return &Error{Command: command, Class: reply.Error.Class, Desc: reply.Error.Desc}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(reply.Return, result); err != nil {
		return fmt.Errorf("decode reply: %w", err)
	}
	return nil
}

// HumanMonitor runs one line of QEMU's human monitor and returns what it
// printed. QEMU reports faults of such commands as text, not as an error.
func (c *Client) HumanMonitor(ctx context.Context, line string) (string, error) {
	var text string
	args := map[string]string{"command-line": line}
	err := c.Execute(ctx, "human-monitor-command", args, &text)
	return text, err
}

// Close ends the connection and waits until nothing of the client runs. A
// command in progress fails with [net.ErrClosed]. Close may be called again
// and always returns nil.
func (c *Client) Close() error {
	c.close.Do(func() {
		_ = c.relay.fail(net.ErrClosed)
		c.turn <- struct{}{} // SocketMonitor must be idle before it is disconnected
		_ = c.monitor.Disconnect()
		<-c.turn
		c.relay.wait()
	})
	return nil
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, defaultBound)
}
