package castra

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
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
	if cfg.StateDir == "" && home == "" {
		return nil, errNoHome
	}
	p := &Project{options: o, config: cfg, home: home, id: workspace.ID(cfg.Name, cfg.Dir), root: cfg.StateDir}
	var made *workspace.Workspace
	if p.root == "" {
		p.root = workspace.DefaultRoot(home, p.id)
		made, err = workspace.UnderHome(home, cfg.Dir)
	} else {
		made, err = workspace.Open(p.root)
	}
	if err == nil {
		// A project that was given another name keeps its workspace, and the VMs that run there.
		p.root, p.id = made.Root, made.ID
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
	return &unreadableError{file, cause(err)}
}

type unreadableError struct {
	file string
	err  error
}

func (e *unreadableError) Error() string { return fmt.Sprintf("configuration %s: %v", e.file, e.err) }
func (e *unreadableError) Unwrap() error { return e.err }
func (e *unreadableError) Hint() string {
	return "check the path and its permissions; CASTRA_CONFIG, where it is set, must name a castra.toml"
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
	user, _ := os.UserHomeDir()
	if !filepath.IsAbs(user) {
		return "", nil // a state_dir may do without
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
