package qemutest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	connectLimit = 5 * time.Second
	loadDelay    = 5 * time.Millisecond // from the answer to migrate-incoming to the guest's being there
)

// migration is what a machine knows of its being saved, or restored.
type migration struct {
	mu           sync.Mutex
	status       string // as query-migrate tells it; "" before any
	desc         string // why it failed
	capabilities map[string]bool
	started      bool     // migrate-incoming has been accepted
	conn         net.Conn // that the state goes to
}

func (g *migration) ignoresShared() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.capabilities["x-ignore-shared"]
}

func (g *migration) active() bool { return g.status == "setup" || g.status == "active" }

// end sets the status, unless the migration was cancelled before.
func (g *migration) end(status, desc string) (was string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was = g.status
	if was != "cancelled" {
		g.status, g.desc = status, desc
	}
	return was
}

// capabilities are those of QEMU 7.2, in its order.
var capabilities = []string{
	"xbzrle", "rdma-pin-all", "auto-converge", "zero-blocks", "compress", "events", "postcopy-ram", "x-colo", "release-ram", "block",
	"return-path", "pause-before-switchover", "multifd", "dirty-bitmaps", "postcopy-blocktime", "late-block-activate", "x-ignore-shared",
	"validate-uuid", "background-snapshot", "zero-copy-send", "postcopy-preempt",
}

func (m *machine) capabilities() []string {
	if !m.personality.Has("no-ignore-shared") {
		return capabilities
	}
	return slices.DeleteFunc(slices.Clone(capabilities), func(c string) bool { return c == "x-ignore-shared" })
}

func generic(format string, args ...any) *refusal {
	return &refusal{"GenericError", fmt.Sprintf(format, args...)}
}

// arguments decodes a command's arguments, of which QEMU wants the named ones.
func arguments(raw json.RawMessage, into any, needed ...string) *refusal {
	var given map[string]json.RawMessage
	_ = json.Unmarshal(raw, &given) // no arguments are none of the needed ones
	for _, key := range needed {
		if given[key] == nil {
			return generic("Parameter '%s' is missing", key)
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); len(raw) > 0 && err != nil {
		_, key, _ := strings.Cut(err.Error(), `unknown field "`)
		return generic("Parameter '%s' is unexpected", strings.TrimSuffix(key, `"`))
	}
	return nil
}

func (m *machine) setCapabilities(raw json.RawMessage) (any, *refusal) {
	var a struct {
		Capabilities []struct {
			Capability string
			State      *bool
		}
	}
	if refused := arguments(raw, &a, "capabilities"); refused != nil {
		return nil, refused
	}
	m.migration.mu.Lock()
	defer m.migration.mu.Unlock()
	for i, c := range a.Capabilities {
		switch {
		case !slices.Contains(m.capabilities(), c.Capability):
			return nil, generic("Parameter 'capability' does not accept value '%s'", c.Capability)
		case c.State == nil:
			return nil, generic("Parameter 'capabilities[%d].state' is missing", i)
		}
	}
	for _, c := range a.Capabilities {
		m.migration.capabilities[c.Capability] = *c.State
	}
	return struct{}{}, nil
}

func (m *machine) queryCapabilities(json.RawMessage) (any, *refusal) {
	m.migration.mu.Lock()
	defer m.migration.mu.Unlock()
	list := []map[string]any{}
	for _, c := range m.capabilities() {
		list = append(list, map[string]any{"capability": c, "state": m.migration.capabilities[c]})
	}
	return list, nil
}

func (m *machine) setParameters(raw json.RawMessage) (any, *refusal) {
	var a struct {
		Rounds    *int   `json:"announce-rounds"`
		Initial   *int   `json:"announce-initial"`
		Max       *int   `json:"announce-max"`
		Step      *int   `json:"announce-step"`
		Bandwidth *int64 `json:"max-bandwidth"`
		Downtime  *int64 `json:"downtime-limit"`
	}
	if refused := arguments(raw, &a); refused != nil {
		return nil, refused
	}
	if a.Rounds != nil && (*a.Rounds < 0 || *a.Rounds > 1000) {
		return nil, generic("Parameter 'announce_rounds' expects a value between 0 and 1000")
	}
	return struct{}{}, nil
}

func (m *machine) queryMigrate(json.RawMessage) (any, *refusal) {
	m.migration.mu.Lock()
	defer m.migration.mu.Unlock()
	reply := map[string]any{}
	if m.migration.status != "" {
		reply["status"] = m.migration.status
	}
	if m.migration.desc != "" {
		reply["error-desc"] = m.migration.desc
	}
	return reply, nil
}

func (m *machine) cancelMigration(json.RawMessage) (any, *refusal) {
	m.migration.mu.Lock()
	defer m.migration.mu.Unlock()
	if m.migration.active() {
		m.migration.status = "cancelled"
		if m.migration.conn != nil {
			m.migration.conn.Close()
		}
	}
	return struct{}{}, nil
}

// migrate begins to send the machine's state to a unix socket.
func (m *machine) migrate(raw json.RawMessage) (any, *refusal) {
	var a struct{ URI string }
	if refused := arguments(raw, &a, "uri"); refused != nil {
		return nil, refused
	}
	if m.status.get() == "inmigrate" {
		return nil, generic("Guest is waiting for an incoming migration")
	}
	if m.personality.Has("migrate-silent") {
		select {} // the monitor with it
	}
	m.migration.mu.Lock()
	defer m.migration.mu.Unlock()
	if m.migration.active() {
		return nil, generic("There's a migration process in progress")
	}
	m.migration.desc, m.migration.conn = "", nil
	path, ok := strings.CutPrefix(a.URI, "unix:")
	if !ok {
		m.migration.status = "failed"
		return nil, generic("Parameter 'uri' expects a valid migration protocol")
	}
	m.migration.status = "setup"
	go m.send(path)
	return struct{}{}, nil
}

// send is a migration, which goes on beside the monitor.
func (m *machine) send(path string) {
	fail := func(desc string) {
		if m.migration.end("failed", desc) != "cancelled" {
			complain("%s", desc)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		fail(fmt.Sprintf("Failed to connect to '%s': %s", path, reason(err)))
		return
	}
	defer conn.Close()
	m.migration.mu.Lock()
	m.migration.conn = conn
	if m.migration.status == "setup" {
		m.migration.status = "active"
	}
	m.migration.mu.Unlock()
	if m.personality.Has("migrate-stuck") {
		_, _ = conn.Read(make([]byte, 1)) // until it is cancelled, or the other end is gone
		return
	}
	state, err := m.encodeState()
	if err != nil {
		fail(err.Error())
		return
	}
	if m.personality.Has("migrate-fails") {
		_, _ = conn.Write(state[:len(state)/2])
		fail("Unable to write to socket: Broken pipe")
		return
	}
	if _, err := conn.Write(state); err != nil {
		fail("Unable to write to socket: " + reason(err))
		return
	}
	if m.status.get() == "running" {
		m.monitor.event("STOP", nil)
	}
	m.status.set("postmigrate")
	m.migration.end("completed", "")
}

// migrateIncoming takes a state from a descriptor that QEMU was started with.
// Where there is none, QEMU says nothing and waits for ever.
func (m *machine) migrateIncoming(raw json.RawMessage) (any, *refusal) {
	var a struct{ URI string }
	if refused := arguments(raw, &a, "uri"); refused != nil {
		return nil, refused
	}
	m.migration.mu.Lock()
	defer m.migration.mu.Unlock()
	switch {
	case !m.incoming:
		return nil, generic("'-incoming' was not specified on the command line")
	case m.migration.started:
		return nil, generic("The incoming migration has already been started")
	}
	m.monitor.event("MIGRATION", map[string]any{"status": "setup"})
	number, ok := strings.CutPrefix(a.URI, "fd:")
	fd, err := strconv.Atoi(number)
	if !ok || err != nil {
		return nil, generic("unknown migration protocol: %s", a.URI)
	}
	m.migration.started = true
	if f, err := inherited(fd); err == nil {
		time.AfterFunc(loadDelay, func() {
			if err := m.load(f); err != nil {
				for line := range strings.Lines(err.Error()) {
					complain("%s", strings.TrimSuffix(line, "\n"))
				}
				m.removePidfile()
				leave(1)
			}
		})
	}
	return struct{}{}, nil
}
