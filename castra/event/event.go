package event

// Kind is the stable name of an event, as written in JSON under "type".
type Kind string

// Event is one past fact. Only the structs of this package are events.
type Event interface {
	// Kind names the fact.
	Kind() Kind
	// Subject is the name of the VM it is about; "" when it is about none.
	Subject() string
	sealed()
}

// Message is free text for people: a notice, a warning or an error.
type Message struct {
	VM    string `json:"-"`
	Level string `json:"level"` // "info", "warning" or "error"
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"` // what to do next
}

// OverlayPrepared says that a VM's overlay exists and names its base image.
type OverlayPrepared struct {
	VM        string `json:"-"`
	Path      string `json:"path"`
	BaseImage string `json:"base_image"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// Forward is one host port that leads to a guest port.
type Forward struct {
	HostIP    string `json:"host_ip"`
	HostPort  int    `json:"host_port"`
	GuestPort int    `json:"guest_port"`
	Protocol  string `json:"protocol"`
}

// Launched says that a VM's QEMU runs. Forwards are the ports really taken.
type Launched struct {
	VM          string    `json:"-"`
	PID         int       `json:"pid"`
	Accelerator string    `json:"accelerator"`
	CPUs        int       `json:"cpus"`
	MemoryMiB   int       `json:"memory_mib"`
	Forwards    []Forward `json:"forwards"`
}

// Waiting says what a VM is waited for, for how long so far and at most. It
// comes every second for each VM; LimitMS is 0 where there is no limit.
type Waiting struct {
	VM        string `json:"-"`
	For       string `json:"for"`
	ElapsedMS int64  `json:"elapsed_ms"`
	LimitMS   int64  `json:"limit_ms"`
}

// StartChosen says how a VM is started, and why not by less work.
type StartChosen struct {
	VM       string `json:"-"`
	Start    string `json:"start"`           // "cold", "disk" or "ram"
	Stage    string `json:"stage,omitempty"` // what the template holds: "ready" or "bootstrapped"
	Template string `json:"template,omitempty"`
	Reason   string `json:"reason"`
}

// TemplateSaved says that a VM was kept as a template for later starts.
type TemplateSaved struct {
	VM        string `json:"-"`
	Template  string `json:"template"`
	Stage     string `json:"stage"`
	Start     string `json:"start"`            // what it allows: "ram" or "disk"
	Reason    string `json:"reason,omitempty"` // why it is not "ram"
	Bytes     int64  `json:"bytes"`            // on disk
	ElapsedMS int64  `json:"elapsed_ms"`
}

// Ready says that SSH let us in at this address.
type Ready struct {
	VM        string `json:"-"`
	User      string `json:"user"`
	Host      string `json:"host"`
	Port      int    `json:"port"`
	Start     string `json:"start,omitempty"` // as in StartChosen
	ElapsedMS int64  `json:"elapsed_ms"`
}

// CopyProgress says how far a copy to or from a VM is, in bytes of file
// contents. Total is 0 while it is unknown. It comes a few times a second at most.
type CopyProgress struct {
	VM     string `json:"-"`
	Source string `json:"source"`
	Target string `json:"target"`
	Done   int64  `json:"done"`
	Total  int64  `json:"total"`
}

// ShutdownRequested opens a VM's shutdown ladder.
type ShutdownRequested struct {
	VM     string `json:"-"`
	Reason string `json:"reason"`
}

// CooperativeAttempted says that the guest was asked to power off, or with
// Channel "unavailable" that it could not be asked, and why.
type CooperativeAttempted struct {
	VM      string `json:"-"`
	Channel string `json:"channel"` // "qmp" or "unavailable"
	Reason  string `json:"reason,omitempty"`
	LimitMS int64  `json:"limit_ms"`
}

// CooperativeSucceeded says that the guest powered itself off.
type CooperativeSucceeded struct {
	VM        string `json:"-"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// CooperativeTimedOut says that the guest did not power off in time.
type CooperativeTimedOut struct {
	VM        string `json:"-"`
	Reason    string `json:"reason,omitempty"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// Escalated says that QEMU was sent a signal, and how long it has to end.
type Escalated struct {
	VM      string `json:"-"`
	Signal  string `json:"signal"` // "SIGTERM" or "SIGKILL"
	LimitMS int64  `json:"limit_ms"`
}

// Stopped closes a VM's shutdown ladder.
type Stopped struct {
	VM      string `json:"-"`
	Outcome string `json:"outcome"` // "graceful", "terminated", "killed" or "not running"
	TotalMS int64  `json:"total_ms"`
	Changed bool   `json:"changed"` // false when it did not run anyway
}

// OverlayDiscarded says that a VM's overlay was removed.
type OverlayDiscarded struct {
	VM     string `json:"-"`
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"` // "shutdown" or "orphan"
}

// ImageProgress says how far the work on a base image is, in bytes. Total is 0
// while it is unknown.
type ImageProgress struct {
	Image string `json:"image"`
	Phase string `json:"phase"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// ImageVerified says that a base image has the size and digest it should have.
type ImageVerified struct {
	Image     string `json:"image"`
	Path      string `json:"path"`
	Digest    string `json:"digest"`
	Bytes     int64  `json:"bytes"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// BootstrapPlanned says whether a VM's bootstrap will run, and why.
type BootstrapPlanned struct {
	VM     string `json:"-"`
	Mode   string `json:"mode"`   // "skip", "auto" or "always"
	Action string `json:"action"` // "run" or "skip"
	Reason string `json:"reason,omitempty"`
	Script string `json:"script,omitempty"`
}

// BootstrapStarted opens one run of a VM's bootstrap. Digest is that of the
// script and payload it brings.
type BootstrapStarted struct {
	VM      string `json:"-"`
	Run     string `json:"run"`
	Digest  string `json:"digest"`
	LimitMS int64  `json:"limit_ms"`
}

// BootstrapStep is one step of a run: wait-handshake, connect, transfer,
// apply or verify. ElapsedMS is 0 when it starts.
type BootstrapStep struct {
	VM        string `json:"-"`
	Run       string `json:"run"`
	Step      string `json:"step"`
	Status    string `json:"status"` // "started", "completed" or "failed"
	Detail    string `json:"detail,omitempty"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// BootstrapOutput is one line the script wrote in the guest, as it came.
type BootstrapOutput struct {
	VM     string `json:"-"`
	Run    string `json:"run"`
	Stream string `json:"stream"` // "stdout" or "stderr"
	Line   string `json:"line"`
}

// BootstrapCompleted closes a run that did what it should.
type BootstrapCompleted struct {
	VM        string `json:"-"`
	Run       string `json:"run"`
	Outcome   string `json:"outcome"` // "applied", "noop" or "skipped"
	Log       string `json:"log,omitempty"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// BootstrapFailed closes a run that did not.
type BootstrapFailed struct {
	VM        string `json:"-"`
	Run       string `json:"run"`
	Step      string `json:"step"`
	Error     string `json:"error"`
	Log       string `json:"log,omitempty"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// Cleanup says that something was removed from a workspace.
type Cleanup struct {
	Path  string `json:"path"`
	What  string `json:"kind"` // image, overlay, log, pidfile, ...
	Bytes int64  `json:"bytes"`
}

// CommandAccepted says that a command's input is in order and work begins.
type CommandAccepted struct {
	Command string `json:"command"`
}

// CommandRejected says that a command was refused before it changed anything.
type CommandRejected struct {
	Command string `json:"command"`
	Reason  string `json:"reason"`
}

// CommandCompleted says that a command did what it should.
type CommandCompleted struct {
	Command   string `json:"command"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// CommandFailed says that a command did not.
type CommandFailed struct {
	Command   string `json:"command"`
	Error     string `json:"error"`
	ElapsedMS int64  `json:"elapsed_ms"`
}

// Summary is a command's last word: what came out of it.
type Summary struct {
	Command   string `json:"command"`
	Text      string `json:"text"`
	ElapsedMS int64  `json:"elapsed_ms"`
}
