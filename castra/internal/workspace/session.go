package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"castra.example/castra/castra/internal/host"
)

// Session is metadata/session.json: what this workspace runs, and what is
// needed to find, reach and end it without castra.toml. It is written before
// the act it tells of, so it may name a VM that never came to run; whether one
// runs is decided by the lock on its pidfile alone.
type Session struct {
	Schema int           `json:"schema_version"`
	Root   string        `json:"root"` // of the workspace that wrote it
	Waits  Waits         `json:"shutdown"`
	VMs    map[string]VM `json:"vms"`
}

// Waits are the bounds of the steps of a shutdown, kept with the VMs so that
// they can be taken down when castra.toml is gone.
type Waits struct {
	Graceful  time.Duration `json:"graceful_ns"`
	Terminate time.Duration `json:"sigterm_ns"`
	Kill      time.Duration `json:"sigkill_ns"`
}

// VM is the record of one VM.
type VM struct {
	Name        string    `json:"name"`
	Role        string    `json:"role"`
	UUID        string    `json:"uuid"`
	BootID      string    `json:"boot_id"`
	PID         int       `json:"pid,omitempty"`
	Accelerator string    `json:"accelerator"`
	Launched    time.Time `json:"launched"`
	Ready       time.Time `json:"ready,omitzero"`
	// Ending is set when a command begins to take the VM down, so that its end
	// is not taken for a crash.
	Ending    bool              `json:"ending,omitempty"`
	Settings  map[string]string `json:"settings"`
	Start     Start             `json:"start,omitzero"`
	Overlay   Overlay           `json:"overlay"`
	SSH       SSH               `json:"ssh"`
	Forwards  []Forward         `json:"forwards"`
	Bootstrap Bootstrap         `json:"bootstrap,omitzero"`
	Health    string            `json:"health,omitempty"`
}

// Start is how a VM was started. Kind is "cold", "disk" or "ram"; it is on
// record before QEMU runs, so that a guest that a killed command restored is
// not taken for one that has booted.
type Start struct {
	Kind     string `json:"kind"`
	Stage    string `json:"stage,omitempty"`
	Template string `json:"template,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Saving is set while the guest is stopped to be saved.
	Saving bool `json:"saving,omitempty"`
}

// Overlay is a disk that Castra made for one run of a VM. ID is that of the
// file made; it is zero when the command was killed before making it.
type Overlay struct {
	Path      string      `json:"path"`
	BaseImage string      `json:"base_image"`
	ID        host.FileID `json:"id,omitzero"`
}

// SSH is how to log in.
type SSH struct {
	User     string `json:"user"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Identity string `json:"identity"`
	HostKey  string `json:"host_key"`
	// Open: the guest let us in without asking for the key.
	Open bool `json:"open_login,omitempty"`
}

// Forward is one hostfwd rule as it is in force.
type Forward struct {
	HostIP    string `json:"host_ip"`
	HostPort  int    `json:"host_port"`
	GuestPort int    `json:"guest_port"`
	Protocol  string `json:"protocol"`
}

// Bootstrap is how the last bootstrap of this run of the VM ended.
type Bootstrap struct {
	Digest  string    `json:"digest,omitempty"`
	Outcome string    `json:"outcome,omitempty"` // applied, noop, skipped, failed
	Step    string    `json:"step,omitempty"`
	Error   string    `json:"error,omitempty"`
	Log     string    `json:"log,omitempty"`
	Ended   time.Time `json:"ended,omitzero"`
}

// Names of the VMs on record, sorted.
func (s *Session) Names() []string { return slices.Sorted(maps.Keys(s.VMs)) }

// LoadSession reads the session; an absent one is empty. A file that cannot be
// read as one is an error: the pidfiles still tell what runs.
func (w *Workspace) LoadSession() (*Session, error) {
	s := &Session{VMs: map[string]VM{}}
	err := loadRecord(w.Session(), s, &s.Schema)
	if errors.Is(err, fs.ErrNotExist) {
		s.Schema = schemaVersion
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	for name := range s.VMs {
		switch {
		case s.VMs[name].Name != name:
			return nil, &RecordError{Path: w.Session(), Err: fmt.Errorf("VM %q is filed under %q", s.VMs[name].Name, name)}
		case name == "" || filepath.Base(name) != name || !filepath.IsLocal(name):
			return nil, &RecordError{Path: w.Session(), Err: fmt.Errorf("%q is no name of a VM", name)} // it would lead out of the workspace
		}
	}
	if s.VMs == nil {
		s.VMs = map[string]VM{}
	}
	s.rebase(w.Root)
	return s, nil
}

// rebase makes the record of a workspace that was moved, or is a copy of
// another, speak of the overlays here and not of those where it was written.
func (s *Session) rebase(root string) {
	if s.Root == "" || s.Root == root {
		return
	}
	for name, vm := range s.VMs {
		if rel, err := filepath.Rel(s.Root, vm.Overlay.Path); err == nil && filepath.IsLocal(rel) {
			vm.Overlay.Path, vm.Overlay.ID = filepath.Join(root, rel), host.FileID{}
			s.VMs[name] = vm
		}
	}
	s.Root = root
}

// SetAside renames an unusable session so that it can be looked at, and so
// that the next write starts afresh.
func (w *Workspace) SetAside() (string, error) { return w.setAside(w.Session()) }

// SaveSession writes the session; the caller holds the lock.
func (w *Workspace) SaveSession(s *Session) error {
	if err := w.MakeDir(w.Metadata()); err != nil {
		return err
	}
	s.Schema, s.Root = schemaVersion, w.Root
	return w.writeJSON(w.Session(), s)
}
