package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// maxLine is the longest line SocketMonitor can take, newline included.
const maxLine = 64 << 10

// relay stands between QEMU and SocketMonitor. It owns both connections.
type relay struct {
	server net.Conn // to QEMU
	inner  net.Conn // to SocketMonitor
	done   sync.WaitGroup

	mu      sync.Mutex
	waiting bool   // a command is out and unanswered
	id      string // of that command, "" for the handshake
	reply   *message
	err     error // what ended the relay
}

type request struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        string `json:"id"`
}

// message is any line QEMU sends: a greeting, an event or a reply.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Event  string          `json:"event"`
	ID     json.RawMessage `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

func startRelay(server, inner net.Conn, lines *bufio.Reader) *relay {
	r := &relay{server: server, inner: inner}
	r.done.Go(func() { _ = r.fail(r.fromQEMU(lines)) })
	r.done.Go(func() {
		_, err := io.Copy(server, inner)
		if err == nil {
			err = net.ErrClosed
		}
		_ = r.fail(err)
	})
	return r
}

// call lets run send one command through SocketMonitor and returns QEMU's
// answer. When ctx ends first, both connections are closed: that is what makes
// run return. What run returns counts only if the relay saw no answer.
func (r *relay) call(ctx context.Context, id string, run func() error) (*message, error) {
	if err := r.expect(id); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.fail(fmt.Errorf("no reply: %w", ctx.Err())) })
	defer stop()
	err := run()
	r.mu.Lock()
	reply := r.reply
	r.mu.Unlock()
	if reply != nil {
		return reply, nil
	}
	if err == nil {
		err = errors.New("no reply")
	}
	return nil, r.fail(err)
}

func (r *relay) expect(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.waiting, r.id, r.reply = true, id, nil
	return nil
}

// fromQEMU passes replies on until the stream ends or makes no sense. One
// reply a command, never more: SocketMonitor reads the next line into the
// buffer that still holds the last one.
func (r *relay) fromQEMU(lines *bufio.Reader) error {
	for {
		line, m, err := readMessage(lines)
		if err != nil {
			return err
		}
		if m.Event != "" {
			continue
		}
		if err := r.settle(m); err != nil {
			return err
		}
		if err := r.deliver(line); err != nil {
			return err
		}
	}
}

// settle records m as the answer to the command that is out. QEMU repeats a
// command's id, except when it could not parse the command.
func (r *relay) settle(m *message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ours := string(m.ID) == `"`+r.id+`"` || len(m.ID) == 0 && (r.id == "" || m.Error != nil)
	switch {
	case m.Return == nil && m.Error == nil:
		return errors.New("QEMU sent a line that is neither event nor reply")
	case !r.waiting:
		return errors.New("QEMU sent a reply that nobody asked for")
	case !ours:
		return fmt.Errorf("QEMU answered another command: id %.40s", m.ID)
	}
	r.waiting, r.reply = false, m
	return nil
}

func (r *relay) deliver(line []byte) error {
	_, err := r.inner.Write(line)
	return err
}

// fail ends the relay and returns the first cause of it.
func (r *relay) fail(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.server.Close()
		r.inner.Close()
	}
	return r.err
}

func (r *relay) wait() { r.done.Wait() }

func newLineReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, maxLine) }

// readMessage returns the next line that is not blank. The line is valid until
// the next read.
func readMessage(lines *bufio.Reader) ([]byte, *message, error) {
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, nil, fmt.Errorf("QEMU sent a line of more than %d KiB", maxLine>>10)
		case err != nil:
			return nil, nil, fmt.Errorf("connection ended: %w", err)
		case len(bytes.TrimSpace(line)) == 0:
			continue
		}
		m := new(message)
		if err := json.Unmarshal(line, m); err != nil {
			return nil, nil, fmt.Errorf("peer does not speak QMP: it sent %.60q", line)
		}
		return line, m, nil
	}
}
