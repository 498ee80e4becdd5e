package qemutest

import (
	"bufio"
	"encoding/json"
	"net"
	"sync"
	"time"
)

const qmpGreeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "fake"}, "capabilities": ["oob"]}}`

// monitor serves QMP, one client at a time; others wait unanswered.
type monitor struct {
	m  *machine
	ln *net.UnixListener

	mu     sync.Mutex
	client net.Conn // that has negotiated, and so hears events
}

type command struct {
	Execute   string          `json:"execute"`
	ID        json.RawMessage `json:"id,omitempty"`
	Arguments json.RawMessage `json:"arguments"`
}

type refusal struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

type answer struct {
	Return any             `json:"return,omitempty"`
	Error  *refusal        `json:"error,omitempty"`
	ID     json.RawMessage `json:"id,omitempty"`
}

func listenMonitor(m *machine) (*monitor, error) {
	mon := &monitor{m: m}
	if m.options.monitor == "" {
		return mon, nil
	}
	var err error
	mon.ln, err = listenUnix(m.options.monitor)
	return mon, err
}

func (mon *monitor) serve() {
	if mon.ln == nil {
		return
	}
	for {
		conn, err := mon.ln.Accept()
		if err != nil {
			return
		}
		if mon.m.personality.Has("no-qmp-greeting") || mon.m.personality.Has("hang") {
			held := conn
			go func() { _, _ = held.Read(make([]byte, 1)) }()
			continue
		}
		mon.converse(conn)
		mon.hear(nil)
		conn.Close()
	}
}

// hear makes client the one that is sent events.
func (mon *monitor) hear(client net.Conn) {
	mon.mu.Lock()
	mon.client = client
	mon.mu.Unlock()
}

func (mon *monitor) converse(conn net.Conn) {
	if !mon.write(conn, json.RawMessage(qmpGreeting)) {
		return
	}
	negotiated := false
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var c command
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			a.Error = &refusal{"GenericError", "JSON parse error, invalid input"}
		} else {
			a = mon.execute(c, negotiated)
		}
		if c.Execute == "qmp_capabilities" && a.Error == nil {
			negotiated = true
			mon.hear(conn)
		}
		if !mon.write(conn, a) {
			return
		}
		if c.Execute == "quit" && a.Error == nil {
			mon.m.end()
		}
	}
}

func (mon *monitor) execute(c command, negotiated bool) answer {
	a := answer{ID: c.ID, Return: struct{}{}}
	refuse := func(desc string) answer {
		return answer{ID: c.ID, Error: &refusal{"CommandNotFound", desc}}
	}
	m := mon.m
	switch {
	case !negotiated && c.Execute != "qmp_capabilities":
		return refuse("Expecting capabilities negotiation with 'qmp_capabilities'")
	case negotiated && c.Execute == "qmp_capabilities":
		return refuse("Capabilities negotiation is already complete, command ignored")
	}
	switch c.Execute {
	case "qmp_capabilities":
	case "query-status":
		status := m.status.get()
		a.Return = map[string]any{"status": status, "singlestep": false, "running": status == "running"}
	case "query-uuid":
		a.Return = map[string]any{"UUID": m.uuid}
	case "query-name":
		a.Return = map[string]any{"name": m.name}
	case "system_powerdown":
		mon.event("POWERDOWN", nil)
		m.powerdown()
	case "stop":
		if m.status.get() == "running" {
			m.status.set("paused")
			mon.event("STOP", nil)
		}
	case "cont":
		if m.status.get() != "inmigrate" {
			m.status.set("running")
			mon.event("RESUME", nil)
		}
	case "quit":
		mon.event("SHUTDOWN", map[string]any{"guest": false, "reason": "host-qmp-quit"})
	default:
		run, found := commands[c.Execute]
		if !found {
			return refuse("The command " + c.Execute + " has not been found")
		}
		a.Return, a.Error = run(m, c.Arguments)
	}
	return a
}

// event tells the client, if there is one that negotiated.
func (mon *monitor) event(name string, data map[string]any) {
	mon.mu.Lock()
	client := mon.client
	mon.mu.Unlock()
	if client == nil {
		return
	}
	now := time.Now()
	e := map[string]any{"event": name, "timestamp": map[string]int64{
		"seconds": now.Unix(), "microseconds": int64(now.Nanosecond() / 1000),
	}}
	if data != nil {
		e["data"] = data
	}
	mon.write(client, e)
}

func (mon *monitor) write(conn net.Conn, v any) bool {
	line, err := json.Marshal(v)
	if err != nil {
		return false
	}
	mon.mu.Lock()
	defer mon.mu.Unlock()
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, err = conn.Write(append(line, "\r\n"...))
	return err == nil
}
