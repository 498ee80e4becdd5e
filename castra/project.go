package castra

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

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
	// StateDir is the absolute path of the workspace, instead of the one that
	// castra.toml leads to: another set of the same VMs.
	StateDir string
	// Accelerator must be used: kvm, hvf or tcg. "" takes the best there is.
	Accelerator string
	// BaseImage is the base image of VMs that name none.
	BaseImage string
	// ImageMirror is the URL of a directory from which images of the catalogue are fetched, by the names of their files; https, http or
	// file, since their digests decide. "" fetches each from where it is published.
	ImageMirror string
	// Force turns checks of memory and disk room into warnings, and lets
	// Clean and Prune stop running VMs first.
	Force bool
	// Synthetic makes up a project of one VM where there is no castra.toml:
	// role "vm", the small guest or BaseImage.
	Synthetic bool
	// Warm is how far VMs may start from templates, and templates be made of
	// them: "" is the best there is, memory and disk; "disk" is disks alone;
	// "off" is not at all. castra.toml may have less of it, never more.
	Warm string
	// TemplatesMax is the room in bytes that templates may take under Home; 0 is
	// 10 GiB. For no templates, set Warm to "off".
	TemplatesMax int64

	templatesMax string // CASTRA_TEMPLATES_MAX, where it makes no sense: TemplatesMax is then negative
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
	config  *config.Project // that of castra.toml, or of the snapshot in the workspace; nil where there is neither
	fault   error           // why castra.toml itself is not in config
	home    string
	root    string
	id      string
	keys    string // directory of the keys that workspaces beside the project's own share; "" of its own
}

// Open reads the project's castra.toml. It changes nothing on disk. Errors are
// *config.NotFoundError, config.Faults, those of reading the file, or of
// options that make no sense.
func Open(o Options) (*Project, error) {
	home, err := homeOf(o)
	if err != nil {
		return nil, err
	}
	cfg, err := load(o)
	if err != nil {
		return nil, err
	}
	switch {
	case o.StateDir != "" && !filepath.IsAbs(o.StateDir):
		return nil, &usageError{fmt.Sprintf("state directory %q is not an absolute path", o.StateDir), "write it from / on"}
	case o.StateDir == "" && cfg.StateDir == "" && home == "":
		return nil, errNoHome
	}
	if err := o.checkWarm(); err != nil {
		return nil, err
	}
	p := &Project{options: o, config: cfg, home: home, id: workspace.ID(cfg.Name, cfg.Dir), root: cfg.StateDir}
	if o.StateDir != "" {
		if home != "" {
			p.keys = filepath.Join(home, "keys", p.id)
		}
		p.id, p.root = workspace.ID(cfg.Name, o.StateDir), o.StateDir
	}
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

// checkWarm refuses options for templates that make no sense. Those that
// Environment could not read are told as variables.
func (o Options) checkWarm() error {
	variable, unread := strings.CutPrefix(o.Warm, warmVariable)
	switch {
	case unread:
		return &usageError{fmt.Sprintf("CASTRA_WARM %q is none of 1, 0, disk", variable),
			"write CASTRA_WARM=1 for templates of memory and disk, disk for those of disks alone, or 0 for none; unset, it is 1"}
	case o.Warm != "" && o.Warm != warmDisk && o.Warm != warmOff:
		return &usageError{fmt.Sprintf("Options.Warm %q is none of disk, off", o.Warm), "leave it empty for templates of memory and disk"}
	case o.TemplatesMax >= 0:
		return nil
	case o.templatesMax != "":
		return &usageError{fmt.Sprintf("CASTRA_TEMPLATES_MAX %q is no size of whole MiB, from 64 MiB to 16 TiB", o.templatesMax),
			`write "10 GiB", "512 MiB" or 512 (MiB); to keep no templates, set CASTRA_WARM=0`}
	default:
		return &usageError{fmt.Sprintf("Options.TemplatesMax %d is negative", o.TemplatesMax), `write bytes, or 0 for 10 GiB; to keep no templates, set Options.Warm to "off"`}
	}
}

// Values of Options.Warm, besides "".
const (
	warmDisk = "disk"
	warmOff  = "off"

	warmVariable = "CASTRA_WARM=" // before a value of it that makes no sense
)

// load reads the castra.toml that the options lead to, or makes one up.
func load(o Options) (*config.Project, error) {
	file, err := find(o)
	if as[*config.NotFoundError](err) && o.Synthetic {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return nil, err
		}
		return config.Synthesize(dir, o.BaseImage)
	}
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	return cfg, nil
}

// OpenRecorded is Open for looking at and ending what runs: when castra.toml
// has become unreadable since, or is gone, it takes the workspace that an
// earlier command made for it, with castra.toml as it was then, and gives the
// fault beside the project. Up and Plan, which need castra.toml itself, then
// fail with it.
func OpenRecorded(o Options) (p *Project, fault, err error) {
	if p, fault = Open(o); fault == nil {
		return p, nil, nil
	}
	home, err := homeOf(o)
	if err != nil {
		return nil, nil, err
	}
	dir := o.Dir
	if o.Config != "" {
		dir = filepath.Dir(o.Config)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, nil, fault
	}
	dirs := []string{dir}
	for above := filepath.Dir(dir); o.Config == "" && above != dir; above = filepath.Dir(dir) {
		dirs, dir = append(dirs, above), above // castra.toml may have stood in a directory above
	}
	ws, err := workspace.ByConfigDir(home, dirs...)
	if err != nil {
		return nil, nil, fault
	}
	return recorded(o, home, ws, fault), fault, nil
}

// recorded is the project of a workspace as it was when its VMs were started.
func recorded(o Options, home string, ws *workspace.Workspace, fault error) *Project {
	p := &Project{options: o, fault: fault, home: home, root: ws.Root, id: ws.ID}
	origin := filepath.Join(ws.Root, config.FileName)
	if record, err := ws.LoadRecord(); err == nil && record.Config != "" {
		origin = record.Config
	}
	if cfg, err := config.LoadSnapshot(ws.Snapshot(), origin); err == nil {
		p.config = cfg
	}
	return p
}

var errNoHome = &usageError{"there is no home directory to keep state in: HOME is not set to an absolute path", "set CASTRA_HOME, or [project] state_dir to an absolute path"}

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

// find gives the absolute path of castra.toml.
func find(o Options) (string, error) {
	if o.Config != "" {
		return filepath.Abs(o.Config)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return "", err
	}
	return config.Find(dir)
}

// homeOf is the absolute path of CASTRA_HOME, "" where there is no home
// directory to derive it from.
func homeOf(o Options) (string, error) {
	if o.Home != "" {
		if !filepath.IsAbs(o.Home) {
			return "", &usageError{fmt.Sprintf("CASTRA_HOME %q is not an absolute path", o.Home), "write it from / on, or unset it to use ~/.castra"}
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
