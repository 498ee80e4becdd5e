package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Facts are what a running QEMU says of itself and of the machine it makes:
// what a saved state needs to be the same.
type Facts struct {
	Version string `json:"version"` // and the build: "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"
	Machine string `json:"machine"` // "pc-q35-7.2" behind "q35"
	CPU     string `json:"cpu"`     // model, and a digest of the features the guest sees
	// Refusal says why this QEMU cannot save a guest's memory; "" where it can.
	Refusal string `json:"refusal,omitempty"`
}

// AskFacts asks the VM's monitor.
func AskFacts(ctx context.Context, t Target) (Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, monitorLimit)
	defer cancel()
	mon, err := openMonitor(ctx, t)
	if err != nil {
		return Facts{}, err
	}
	defer mon.Close()
	var version struct {
		QEMU    struct{ Major, Minor, Micro int }
		Package string
	}
	var capabilities []struct{ Capability string }
	var cpus []struct {
		Path string `json:"qom-path"`
	}
	f := Facts{}
	for _, q := range []struct {
		command string
		args    any
		result  any
	}{
		{"query-version", nil, &version},
		{"query-migrate-capabilities", nil, &capabilities},
		{"qom-get", property("/machine", "type"), &f.Machine},
		{"query-cpus-fast", nil, &cpus},
	} {
		if err := mon.Execute(ctx, q.command, q.args, q.result); err != nil {
			return Facts{}, err
		}
	}
	if len(cpus) == 0 {
		return Facts{}, fmt.Errorf("monitor %s: the machine has no CPU", t.Monitor)
	}
	var model string
	if err := mon.Execute(ctx, "qom-get", property(cpus[0].Path, "type"), &model); err != nil {
		return Facts{}, err
	}
	var features json.RawMessage
	// Other architectures than x86 have no such property; there the model's name has to do.
	if err := mon.Execute(ctx, "qom-get", property(cpus[0].Path, "feature-words"), &features); err != nil {
		features = nil
	}
	sum := sha256.Sum256(features)
	f.CPU = model + " " + hex.EncodeToString(sum[:16])
	f.Machine = strings.TrimSuffix(f.Machine, "-machine")
	f.Version = strings.TrimSpace(fmt.Sprintf("%d.%d.%d %s", version.QEMU.Major, version.QEMU.Minor, version.QEMU.Micro, version.Package))
	if !slices.ContainsFunc(capabilities, func(c struct{ Capability string }) bool { return c.Capability == "x-ignore-shared" }) {
		f.Refusal = "QEMU " + f.Version + " cannot leave memory out of a saved state"
	}
	return f, nil
}

func property(path, name string) map[string]any {
	return map[string]any{"path": path, "property": name}
}
