package workspace

import (
	"path/filepath"
	"time"
)

// Layout gives every path in a workspace; nothing else composes one.
type Layout struct {
	// Root is the absolute path of the state root.
	Root string
}

// The names in a workspace. What is not here is not Castra's and is left
// alone.
const (
	markerName     = ".castra-workspace"
	lockName       = "lock"
	logsName       = "logs"
	imagesName     = "images"
	overlaysName   = "overlays"
	metadataName   = "metadata"
	bootstrapName  = "bootstrap"
	handshakesName = "handshakes" // of an earlier program; never made, removed by clean
	recordName     = "workspace.json"
	sessionName    = "session.json"
	askedName      = "down.json"
	asideInfix     = ".corrupt-" // and a number, behind the name of a damaged record
	keySuffix      = "_ed25519"
	pidSuffix      = ".pid"
	monitorSuffix  = ".qmp"
)

func (l Layout) join(parts ...string) string {
	return filepath.Join(append([]string{l.Root}, parts...)...)
}

// Logs holds QEMU, serial and bootstrap logs and events.jsonl.
func (l Layout) Logs() string { return l.join(logsName) }

// Images holds base images.
func (l Layout) Images() string { return l.join(imagesName) }

// DefaultImage is the base image of VMs that name none.
func (l Layout) DefaultImage() string { return l.join(imagesName, "alpine-minimal.qcow2") }

// ImageLink is a link to an image of the store: by its name, or the beginning of its digest.
func (l Layout) ImageLink(name, format string) string { return l.join(imagesName, name+"."+format) }

// Contains tells that path lies in the workspace.
func (l Layout) Contains(path string) bool {
	rel, err := filepath.Rel(l.Root, path)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}

// Overlays holds the qcow2 overlays and seeds of VMs that run.
func (l Layout) Overlays() string { return l.join(overlaysName) }

// Metadata holds the records.
func (l Layout) Metadata() string { return l.join(metadataName) }

// Pidfile is the file that QEMU keeps locked while vm runs.
func (l Layout) Pidfile(vm string) string { return l.join(vm + pidSuffix) }

// MonitorName is the name of vm's QMP socket below Root. QEMU gets the name
// alone and runs in Root, so that the limit on socket paths (107 bytes on
// Linux) does not bind the place of a workspace.
func (l Layout) MonitorName(vm string) string { return vm + monitorSuffix }

// Monitor is the QMP socket of vm.
func (l Layout) Monitor(vm string) string { return l.join(l.MonitorName(vm)) }

// QEMULog is what QEMU printed.
func (l Layout) QEMULog(vm string) string { return l.join(logsName, vm+".log") }

// SerialLog is what the guest printed on its first serial port.
func (l Layout) SerialLog(vm string) string { return l.join(logsName, vm+"-serial.log") }

// BootstrapLog is the record of the bootstrap run that began at t.
func (l Layout) BootstrapLog(vm string, t time.Time) string {
	return l.join(logsName, bootstrapName, vm+"-"+t.UTC().Format("20060102T150405.000Z")+".json")
}

// EventLog holds what happened, one JSON object a line.
func (l Layout) EventLog() string { return l.join(logsName, "events.jsonl") }

// Overlay is vm's overlay when the project names none. Slug and hash are
// those of the workspace ID, so that the file tells whose it is.
func (l Layout) Overlay(id, vm string) string {
	before, after := l.overlayAffixes(id)
	return l.join(overlaysName, before+vm+after)
}

// overlayAffixes stand around the name of a VM in that of its overlay.
func (Layout) overlayAffixes(id string) (before, after string) { return id + "-overlay-", ".qcow2" }

// Vars is vm's copy of the variables that UEFI firmware keeps.
func (l Layout) Vars(vm string) string { return l.join(overlaysName, vm+"-vars.fd") }

// Seed is vm's NoCloud seed.
func (l Layout) Seed(vm string) string { return l.join(overlaysName, vm+"-seed.iso") }

// Identity is the workspace's private SSH key, in OpenSSH's format.
func (l Layout) Identity() string { return l.join(metadataName, "id"+keySuffix) }

// HostKey is the private SSH host key of a role's guests where these may be
// started from a template: it outlives a run, since the template holds it.
func (l Layout) HostKey(role string) string { return l.join(metadataName, "host-"+role+keySuffix) }

// Record is metadata/workspace.json.
func (l Layout) Record() string { return l.join(metadataName, recordName) }

// Snapshot is metadata/config_snapshot.toml.
func (l Layout) Snapshot() string { return l.join(metadataName, "config_snapshot.toml") }

// Session is metadata/session.json.
func (l Layout) Session() string { return l.join(metadataName, sessionName) }

// Asked is written by a command that is about to take VMs down.
func (l Layout) Asked() string { return l.join(metadataName, askedName) }

// Lock is the file that writers lock. It is never removed.
func (l Layout) Lock() string { return l.join(lockName) }
