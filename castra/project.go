package castra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/report"
	"castra.example/castra/castra/internal/workspace"
)

// Options say which project to open and how. The zero value looks for
// castra.toml from the working directory upward and keeps state in ~/.castra.
// Nothing here is read from the environment; the mage targets fill it from
// there.
type Options struct {
	// Dir is where the search for castra.toml begins; "" is the working
	// directory.
	Dir string
	// Config is the path of castra.toml; set, there is no search.
	Config string
	// Home is the directory for all of Castra's state; "" is ~/.castra.
	Home string
	// Accelerator must be used: kvm, hvf or tcg. "" takes the best there is.
	Accelerator string
	// BaseImage is the base image of VMs that name none.
	BaseImage string
	// Force turns checks of memory and disk room into warnings, and lets
	// Clean stop running VMs first.
	Force bool
}

// Project is one castra.toml with its workspace. Its methods may be used from
// several goroutines and beside other processes; those that change something
// wait for each other.
type Project struct {
	// Reporter hears of all that happens; nil is silence.
	Reporter event.Reporter
	// Log takes what is of use in debugging Castra itself; nil is silence.
	Log *slog.Logger

	options Options
	config  *config.Project // nil when castra.toml could not be read
	fault   error           // why it could not
	home    string
	root    string
	id      string
}

// Open reads the project's castra.toml. It changes nothing on disk. Errors are
// *config.NotFoundError, config.Faults, or those of reading the file.
func Open(o Options) (*Project, error) {
	file, home, err := locate(o)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	p := &Project{options: o, config: cfg, home: home, id: workspace.ID(cfg.Name, cfg.Dir)}
	p.root = cfg.StateDir
	if p.root == "" {
		if home == "" {
			return nil, errNoHome
		}
		p.root = workspace.DefaultRoot(home, p.id)
	}
	return p, nil
}

// OpenRecorded is Open for looking at and ending what runs: when castra.toml
// has become unreadable since, it takes the workspace that an earlier command
// made for it, and gives the fault beside the project. Up and Plan, which need
// castra.toml, then fail with it.
func OpenRecorded(o Options) (p *Project, fault, err error) {
	if p, fault = Open(o); fault == nil {
		return p, nil, nil
	}
	file, home, err := locate(o)
	if err != nil {
		return nil, nil, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return nil, nil, fault
	}
	ws, err := workspace.ByDir(home, dir)
	if err != nil {
		return nil, nil, fault
	}
	return &Project{options: o, fault: fault, home: home, root: ws.Root, id: ws.ID}, fault, nil
}

var errNoHome = &usageError{"no home directory: set CASTRA_HOME, or [project] state_dir to an absolute path"}

// unreadable names the file where the system's error names a part of its path.
func unreadable(file string, err error) error {
	if as[config.Faults](err) || as[*config.Error](err) {
		return err
	}
	return fmt.Errorf("configuration %s: %w", file, cause(err))
}

// cause is what the system said, without the operation and path around it.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// locate finds castra.toml, and the absolute path of CASTRA_HOME ("" where
// there is no home directory to derive it from).
func locate(o Options) (file, home string, err error) {
	file = o.Config
	if file == "" {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return "", "", err
		}
		if file, err = config.Find(dir); err != nil {
			return "", "", err
		}
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", "", err
	}
	home, err = homeOf(o)
	return file, home, err
}

func homeOf(o Options) (string, error) {
	if o.Home != "" {
		if !filepath.IsAbs(o.Home) {
			return "", &usageError{fmt.Sprintf("CASTRA_HOME %q is not an absolute path", o.Home)}
		}
		return o.Home, nil
	}
	user, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(user) {
		return "", nil
	}
	return filepath.Join(user, ".castra"), nil
}

// StateRoot is the absolute path of the project's workspace.
func (p *Project) StateRoot() string { return p.root }

// layout gives the paths of the workspace, which may not exist.
func (p *Project) layout() workspace.Layout { return workspace.Layout{Root: p.root} }

// workspace opens the workspace if there is one; nil without an error where
// nothing has been made yet.
func (p *Project) workspace() (*workspace.Workspace, error) {
	ws, err := workspace.Open(p.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return ws, err
}

// log is never nil.
func (p *Project) log() *slog.Logger {
	if p.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.Log
}

// command is one verb being carried out by this process as the only writer of
// the workspace.
type command struct {
	*Project
	ws      *workspace.Workspace
	name    string
	began   time.Time
	events  *event.Emitter
	session *session
	unlock  func()
	journal *os.File // nil where there is none
}

// begin takes the workspace's lock for the verb called name, and loads its
// session. A session that cannot be read is set aside: the pidfiles tell what
// runs. The caller must call end.
func (p *Project) begin(ctx context.Context, ws *workspace.Workspace, name string) (*command, error) {
	c := &command{Project: p, ws: ws, name: name, began: time.Now()}
	journal, journalErr := c.openJournal()
	c.events = event.NewEmitter(ws.ID, time.Now, reporters(p.Reporter, journal)...)
	if journalErr != nil {
		c.warn("", fmt.Sprintf("events are not kept: %v", journalErr), "")
	}
	var err error
	c.unlock, err = ws.Lock(ctx, "mage "+name, func(h workspace.Holder) {
		c.warn("", fmt.Sprintf("waiting for %s, at most %s", h, workspace.LockWait), "")
	})
	if err != nil {
		c.closeJournal()
		return nil, err
	}
	if c.session, err = loadSession(ws, c.warn); err != nil {
		c.end()
		return nil, err
	}
	c.events.Emit(event.CommandAccepted{Command: name})
	return c, nil
}

// end gives the lock back.
func (c *command) end() {
	c.unlock()
	c.closeJournal()
}

// finish reports how the verb ended and hands its error on.
func (c *command) finish(summary string, err error) error {
	ms := time.Since(c.began).Milliseconds()
	if err != nil {
		c.events.Emit(event.CommandFailed{Command: c.name, Error: err.Error(), ElapsedMS: ms})
		return err
	}
	c.events.Emit(event.CommandCompleted{Command: c.name, ElapsedMS: ms})
	c.events.Emit(event.Summary{Command: c.name, Text: summary, ElapsedMS: ms})
	return nil
}

func (c *command) warn(vm, text, hint string) {
	c.events.Emit(event.Message{VM: vm, Level: "warning", Text: text, Hint: hint})
}

// say reports outside a command, where there is no workspace to journal in.
func (p *Project) say(e event.Event) {
	event.NewEmitter(p.id, time.Now, reporters(p.Reporter)...).Emit(e)
}

func reporters(all ...event.Reporter) []event.Reporter {
	var rs []event.Reporter
	for _, r := range all {
		if r != nil {
			rs = append(rs, r)
		}
	}
	return rs
}

const journalLimit = 4 << 20

// openJournal opens events.jsonl for appending; a long one is kept once under
// another name. Clean has none: it removes the journal. A verb does its work
// also where there is no room for one.
func (c *command) openJournal() (event.Reporter, error) {
	if c.name == "clean" {
		return nil, nil
	}
	if err := c.ws.MakeDir(c.ws.Logs()); err != nil {
		return nil, err
	}
	path := c.ws.EventLog()
	if st, err := os.Lstat(path); err == nil && st.Size() > journalLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	c.journal = f
	return report.NewJSON(f), nil
}

func (c *command) closeJournal() {
	if c.journal != nil {
		c.journal.Close()
	}
}

// goarch is the architecture of guests: the host's.
const goarch = runtime.GOARCH
