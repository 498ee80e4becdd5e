package qemutest

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// commands are those of the monitor that change nothing of the conversation
// itself; a refusal goes before a reply.
var commands map[string]func(m *machine, arguments json.RawMessage) (any, *refusal)

func init() { // migrate leads back to the monitor, and so to this table
	commands = map[string]func(*machine, json.RawMessage) (any, *refusal){
		"human-monitor-command":      (*machine).human,
		"query-version":              (*machine).queryVersion,
		"query-cpus-fast":            (*machine).queryCPUs,
		"query-cpu-model-expansion":  (*machine).expandCPU,
		"qom-get":                    (*machine).qomGet,
		"query-migrate-capabilities": (*machine).queryCapabilities,
		"migrate-set-capabilities":   (*machine).setCapabilities,
		"migrate-set-parameters":     (*machine).setParameters,
		"query-migrate":              (*machine).queryMigrate,
		"migrate":                    (*machine).migrate,
		"migrate_cancel":             (*machine).cancelMigration,
		"migrate-incoming":           (*machine).migrateIncoming,
	}
}

func (m *machine) human(raw json.RawMessage) (any, *refusal) {
	var a struct {
		Line string `json:"command-line"`
	}
	if refused := arguments(raw, &a, "command-line"); refused != nil {
		return nil, refused
	}
	if a.Line == "info usernet" {
		return m.network.table(), nil
	}
	return "unknown command: '" + a.Line + "'\r\n", nil
}

func (m *machine) queryVersion(json.RawMessage) (any, *refusal) {
	return map[string]any{"qemu": map[string]int{"major": 7, "minor": 2, "micro": 22}, "package": "fake"}, nil
}

const cpuPath = "/machine/unattached/device[0]"

func (m *machine) queryCPUs(json.RawMessage) (any, *refusal) {
	return []map[string]any{{"cpu-index": 0, "qom-path": cpuPath, "thread-id": os.Getpid(), "target": this().name, "props": map[string]int{}}}, nil
}

func (m *machine) qomGet(raw json.RawMessage) (any, *refusal) {
	var a struct{ Path, Property string }
	if refused := arguments(raw, &a, "path", "property"); refused != nil {
		return nil, refused
	}
	cpu, features := m.shape.cpuType()
	kind := map[string]string{"/machine": m.shape.Machine + "-machine", cpuPath: cpu}[a.Path]
	switch {
	case kind == "":
		return nil, &refusal{"DeviceNotFound", fmt.Sprintf("Device '%s' not found", a.Path)}
	case a.Property == "type":
		return kind, nil
	case a.Path == cpuPath && a.Property == "feature-words" && features != nil:
		return features, nil
	}
	return nil, generic("Property '%s.%s' not found", kind, a.Property)
}

func (m *machine) expandCPU(raw json.RawMessage) (any, *refusal) {
	var a struct {
		Type  string
		Model struct {
			Name  string
			Props map[string]any
		}
	}
	if refused := arguments(raw, &a, "type", "model"); refused != nil {
		return nil, refused
	}
	if !slices.Contains(this().cpus, a.Model.Name) {
		return nil, generic("CPU model '%s' not found", a.Model.Name)
	}
	props := map[string]any{"sse2": true, "aes": a.Model.Name != "qemu64"}
	for key, value := range a.Model.Props {
		props[key] = value
	}
	return map[string]any{"model": map[string]any{"name": a.Model.Name, "props": props}}, nil
}
