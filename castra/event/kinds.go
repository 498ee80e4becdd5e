package event

// all holds one zero value of every event: the table that Kinds, the JSON
// reader and the tests work from.
var all = []Event{
	Message{},
	OverlayPrepared{},
	StartChosen{},
	Launched{},
	Waiting{},
	Ready{},
	TemplateSaved{},
	CopyProgress{},
	ShutdownRequested{},
	CooperativeAttempted{},
	CooperativeSucceeded{},
	CooperativeTimedOut{},
	Escalated{},
	Stopped{},
	OverlayDiscarded{},
	ImageProgress{},
	ImageVerified{},
	BootstrapPlanned{},
	BootstrapStarted{},
	BootstrapStep{},
	BootstrapOutput{},
	BootstrapCompleted{},
	BootstrapFailed{},
	Cleanup{},
	CommandAccepted{},
	CommandRejected{},
	CommandCompleted{},
	CommandFailed{},
	Summary{},
}

// Kinds lists every kind of event, in the order of a VM's life.
func Kinds() []Kind {
	kinds := make([]Kind, len(all))
	for i, e := range all {
		kinds[i] = e.Kind()
	}
	return kinds
}

func (Message) Kind() Kind              { return "message" }
func (OverlayPrepared) Kind() Kind      { return "vm.overlay.prepared" }
func (StartChosen) Kind() Kind          { return "vm.start.chosen" }
func (Launched) Kind() Kind             { return "vm.launched" }
func (Waiting) Kind() Kind              { return "vm.waiting" }
func (Ready) Kind() Kind                { return "vm.ready" }
func (TemplateSaved) Kind() Kind        { return "vm.template.saved" }
func (CopyProgress) Kind() Kind         { return "vm.copy.progress" }
func (ShutdownRequested) Kind() Kind    { return "vm.shutdown.requested" }
func (CooperativeAttempted) Kind() Kind { return "vm.cooperative.attempted" }
func (CooperativeSucceeded) Kind() Kind { return "vm.cooperative.succeeded" }
func (CooperativeTimedOut) Kind() Kind  { return "vm.cooperative.timed_out" }
func (Escalated) Kind() Kind            { return "vm.escalated" }
func (Stopped) Kind() Kind              { return "vm.stopped" }
func (OverlayDiscarded) Kind() Kind     { return "vm.overlay.discarded" }
func (ImageProgress) Kind() Kind        { return "image.progress" }
func (ImageVerified) Kind() Kind        { return "image.verified" }
func (BootstrapPlanned) Kind() Kind     { return "bootstrap.planned" }
func (BootstrapStarted) Kind() Kind     { return "bootstrap.started" }
func (BootstrapStep) Kind() Kind        { return "bootstrap.step" }
func (BootstrapOutput) Kind() Kind      { return "bootstrap.output" }
func (BootstrapCompleted) Kind() Kind   { return "bootstrap.completed" }
func (BootstrapFailed) Kind() Kind      { return "bootstrap.failed" }
func (Cleanup) Kind() Kind              { return "cleanup" }
func (CommandAccepted) Kind() Kind      { return "command.accepted" }
func (CommandRejected) Kind() Kind      { return "command.rejected" }
func (CommandCompleted) Kind() Kind     { return "command.completed" }
func (CommandFailed) Kind() Kind        { return "command.failed" }
func (Summary) Kind() Kind              { return "summary" }

func (e Message) Subject() string              { return e.VM }
func (e OverlayPrepared) Subject() string      { return e.VM }
func (e StartChosen) Subject() string          { return e.VM }
func (e Launched) Subject() string             { return e.VM }
func (e Waiting) Subject() string              { return e.VM }
func (e Ready) Subject() string                { return e.VM }
func (e TemplateSaved) Subject() string        { return e.VM }
func (e CopyProgress) Subject() string         { return e.VM }
func (e ShutdownRequested) Subject() string    { return e.VM }
func (e CooperativeAttempted) Subject() string { return e.VM }
func (e CooperativeSucceeded) Subject() string { return e.VM }
func (e CooperativeTimedOut) Subject() string  { return e.VM }
func (e Escalated) Subject() string            { return e.VM }
func (e Stopped) Subject() string              { return e.VM }
func (e OverlayDiscarded) Subject() string     { return e.VM }
func (ImageProgress) Subject() string          { return "" }
func (ImageVerified) Subject() string          { return "" }
func (e BootstrapPlanned) Subject() string     { return e.VM }
func (e BootstrapStarted) Subject() string     { return e.VM }
func (e BootstrapStep) Subject() string        { return e.VM }
func (e BootstrapOutput) Subject() string      { return e.VM }
func (e BootstrapCompleted) Subject() string   { return e.VM }
func (e BootstrapFailed) Subject() string      { return e.VM }
func (Cleanup) Subject() string                { return "" }
func (CommandAccepted) Subject() string        { return "" }
func (CommandRejected) Subject() string        { return "" }
func (CommandCompleted) Subject() string       { return "" }
func (CommandFailed) Subject() string          { return "" }
func (Summary) Subject() string                { return "" }

func (Message) sealed()              {}
func (OverlayPrepared) sealed()      {}
func (StartChosen) sealed()          {}
func (Launched) sealed()             {}
func (Waiting) sealed()              {}
func (Ready) sealed()                {}
func (TemplateSaved) sealed()        {}
func (CopyProgress) sealed()         {}
func (ShutdownRequested) sealed()    {}
func (CooperativeAttempted) sealed() {}
func (CooperativeSucceeded) sealed() {}
func (CooperativeTimedOut) sealed()  {}
func (Escalated) sealed()            {}
func (Stopped) sealed()              {}
func (OverlayDiscarded) sealed()     {}
func (ImageProgress) sealed()        {}
func (ImageVerified) sealed()        {}
func (BootstrapPlanned) sealed()     {}
func (BootstrapStarted) sealed()     {}
func (BootstrapStep) sealed()        {}
func (BootstrapOutput) sealed()      {}
func (BootstrapCompleted) sealed()   {}
func (BootstrapFailed) sealed()      {}
func (Cleanup) sealed()              {}
func (CommandAccepted) sealed()      {}
func (CommandRejected) sealed()      {}
func (CommandCompleted) sealed()     {}
func (CommandFailed) sealed()        {}
func (Summary) sealed()              {}
