package castra

//mage:multiline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/report"
)

// Up starts the project's VMs and bootstraps them.
// It makes the workspace, an overlay and a seed for each VM that does not run,
// and leaves alone what runs as configured.
// Images that are not here yet are fetched or built first.
// CASTRA_BOOTSTRAP (skip, auto, always, or web=always,db=skip) overrides the
// bootstrap mode; CASTRA_QCOW is the image of VMs that name none;
// CASTRA_IMAGE_MIRROR is a URL to fetch the images of the catalogue from;
// CASTRA_FORCE=1 goes on with too little memory or disk; CASTRA_SYNTHETIC=1
// makes up a project of one VM where there is no castra.toml.
func Up(ctx context.Context) error {
	p, err := open()
	if err != nil {
		return exit(err)
	}
	return exit(p.Up(ctx, upEnvironment()))
}

// Down ends the project's VMs and discards their overlays.
// What is kept is cache: images, logs, the workspace's key. Without a
// castra.toml in reach it ends those of every workspace.
// CASTRA_WORKSPACE is the ID of the one workspace meant.
func Down(ctx context.Context) error {
	ws, err := selected(nil, nil)
	if err != nil {
		return exit(err)
	}
	return exit(ws.Down(ctx, reporter()))
}

// Clean removes the project's images, overlays and logs.
// All of these are caches, made again when needed.
// It refuses while VMs run; CASTRA_FORCE=1 stops them first.
func Clean(ctx context.Context) error {
	p, err := one()
	if err != nil {
		return exit(err)
	}
	return exit(p.Clean(ctx))
}

// Status shows every VM of the project.
// It changes nothing. Without a castra.toml in reach it shows every workspace
// that is active.
func Status(
	ctx context.Context,
	json *bool, // print JSON (default: a table)
	workspace *string, // ID of a workspace (default: the project's)
	all *bool, // every workspace there is (default: the project's)
) error {
	ws, err := selected(workspace, all)
	if err != nil {
		return exit(err)
	}
	status, err := ws.Status(ctx)
	return exit(show(err, status, json, status.write))
}

// Ports shows the forwards from this computer to the guests.
// It changes nothing. Without a castra.toml in reach it shows those of every
// workspace that is active.
func Ports(
	ctx context.Context,
	json *bool, // print JSON (default: a table)
	active *bool, // only forwards in force (default: all)
	verbose *bool, // with the line of castra.toml and notes (default: false)
	workspace *string, // ID of a workspace (default: the project's)
) error {
	ws, err := selected(workspace, nil)
	if err != nil {
		return exit(err)
	}
	ports, err := ws.Ports(ctx)
	return exit(show(err, ports, json, func(w io.Writer) error { return ports.write(w, PortsView{set(active), set(verbose)}) }))
}

// Plan shows what up would do.
// It prints images, overlays and QEMU's command lines, and changes nothing.
func Plan(
	ctx context.Context,
	json *bool, // print JSON (default: text)
) error {
	p, err := open()
	if err != nil {
		return exit(err)
	}
	plan, err := p.Plan(ctx, upEnvironment())
	return exit(show(err, plan, json, plan.write))
}

// Logs shows what QEMU, guests and bootstraps printed.
// It changes nothing.
func Logs(
	ctx context.Context,
	vm *string, // a VM or role (default: all)
	tail *int, // lines of each log (default: 200)
	follow *bool, // go on until Ctrl-C (default: false)
) error {
	p, err := one()
	if err != nil {
		return exit(err)
	}
	return exit(p.Logs(ctx, LogOptions{VM: text(vm), Tail: number(tail), Follow: set(follow), Color: colored(os.Stdout)}, os.Stdout))
}

// Bus shows what runs and the stream of events.
// It changes nothing.
func Bus(
	ctx context.Context,
	json *bool, // print JSON lines (default: text)
	follow *bool, // go on until Ctrl-C (default: false)
	tail *int, // events (default: 20)
) error {
	p, err := one()
	if err != nil {
		return exit(err)
	}
	return exit(p.Bus(ctx, BusOptions{JSON: set(json), Follow: set(follow), Tail: number(tail)}, os.Stdout))
}

// SSH opens a shell in a guest.
// The shell's exit status is mage's. It changes nothing on this computer.
func SSH(ctx context.Context, vm string) error {
	p, err := one()
	if err != nil {
		return exit(err)
	}
	return exit(onTerminal(ctx, func(ctx context.Context, s Shell) error { return p.Shell(ctx, vm, s) }))
}

// Exec runs a command in a guest.
// Its exit status is mage's. The command is one argument: mage exec web-0 "uname -a".
func Exec(ctx context.Context, vm, cmd string) error {
	p, err := one()
	if err != nil {
		return exit(err)
	}
	return exit(p.Exec(ctx, vm, Command{cmd, os.Stdin, os.Stdout, os.Stderr}))
}

// Copy copies files between this computer and a guest.
// One side is vm:path: mage copy web-0:/var/log/messages . writes the file
// here, mage copy site web-0:/srv/site writes the directory there.
func Copy(ctx context.Context, src, dst string) error {
	p, err := one()
	if err != nil {
		return exit(err)
	}
	return exit(p.Copy(ctx, src, dst))
}

// Within runs a command here while the VMs are up.
// It starts the VMs as up does, gives the command their addresses as
// CASTRA_WEB_0_ADDR_80 and the like, always takes the VMs down again, and exits
// with the command's status: mage within "go test ./e2e/...".
func Within(ctx context.Context, cmd string) error {
	p, err := open()
	if err != nil {
		return exit(err)
	}
	return exit(p.Within(ctx, upEnvironment(), HostCommand{cmd, os.Environ(), os.Stdin, os.Stdout, os.Stderr}))
}

// Prune is clean with choices.
// It removes images, overlays and logs of the project's workspace or, with
// -global, those but overlays of every workspace in CASTRA_HOME. It refuses
// while VMs run.
func Prune(
	ctx context.Context,
	global *bool, // every workspace in CASTRA_HOME (default: the project's)
	dryrun *bool, // only show what would go (default: false)
	force *bool, // stop running VMs first (default: false)
	nologs *bool, // keep logs (default: false)
	images *bool, // also shared images that no VM runs from (default: false)
	templates *bool, // also saved guests that no VM runs from (default: false)
	workspace *string, // ID of a workspace (default: the project's)
) error {
	ws, err := prunes(workspace, set(global), set(force))
	if err != nil {
		return exit(err)
	}
	gone, err := ws.Prune(ctx, PruneOptions{DryRun: set(dryrun), KeepLogs: set(nologs), KeepOverlays: set(global), Images: set(images), Templates: set(templates)})
	return exit(errors.Join(gone.write(report.Clean(os.Stdout)), err))
}

// Images lists what VMs can boot from.
// It shows the images that castra.toml can name and those that are here, and
// changes nothing.
func Images(
	ctx context.Context,
	json *bool, // print JSON (default: a table)
) error {
	images, err := ListImages(ctx, Environment())
	return exit(show(err, images, json, images.write))
}

// Init writes castra.toml, a magefile and a bootstrap script.
// It writes into the directory and keeps files that are there.
func Init(
	ctx context.Context,
	name *string, // project name (default: the directory's)
	dir *string, // where to write (default: the working directory)
	force *bool, // replace files that are there (default: false)
) error {
	return exit(Scaffold(ctx, Scaffolding{Dir: text(dir), Name: text(name), Force: set(force), Home: os.Getenv("CASTRA_HOME"), Out: os.Stdout}))
}

// Doctor shows what this computer can and cannot do.
// It changes nothing, and fails where up could not work.
func Doctor(
	ctx context.Context,
	json *bool, // print JSON (default: text)
) error {
	d, err := Diagnose(ctx, Environment())
	return exit(errors.Join(show(err, d, json, d.write), d.err()))
}

// The rest of this file is what the targets share: reading the environment
// and flags, and printing. Nothing below looks like a target to mage.

// Environment is the options that the targets take from CASTRA_CONFIG,
// CASTRA_HOME, CASTRA_ACCEL, CASTRA_QCOW, CASTRA_IMAGE_MIRROR, CASTRA_FORCE,
// CASTRA_SYNTHETIC, CASTRA_WARM and CASTRA_TEMPLATES_MAX, for Go code that is to act as they do.
// Open refuses what makes no sense.
func Environment() Options {
	o := Options{
		Config:      os.Getenv("CASTRA_CONFIG"),
		Home:        os.Getenv("CASTRA_HOME"),
		Accelerator: os.Getenv("CASTRA_ACCEL"),
		BaseImage:   os.Getenv("CASTRA_QCOW"),
		ImageMirror: os.Getenv("CASTRA_IMAGE_MIRROR"),
		Force:       os.Getenv("CASTRA_FORCE") == "1",
		Synthetic:   os.Getenv("CASTRA_SYNTHETIC") == "1",
		Warm:        warmOf(os.Getenv("CASTRA_WARM")),
	}
	if given := os.Getenv("CASTRA_TEMPLATES_MAX"); given != "" {
		mib, err := config.ParseMemory(given)
		if o.TemplatesMax = int64(mib) << 20; err != nil {
			o.TemplatesMax, o.templatesMax = -1, given
		}
	}
	return o
}

// warmOf is Options.Warm for a value of CASTRA_WARM.
func warmOf(value string) string {
	switch value {
	case "", "1":
		return ""
	case "0":
		return warmOff
	case warmDisk:
		return warmDisk
	default:
		return warmVariable + value // not value itself: off and the like are none of the variable's
	}
}

func upEnvironment() UpOptions { return UpOptions{Bootstrap: os.Getenv("CASTRA_BOOTSTRAP")} }

// open opens the project of castra.toml.
func open() (*Project, error) {
	p, err := Open(Environment())
	if err != nil {
		return nil, err
	}
	if asked := os.Getenv("CASTRA_WORKSPACE"); asked != "" && !p.is(asked) {
		return nil, &usageError{fmt.Sprintf("CASTRA_WORKSPACE is %s, and castra.toml here is of workspace %s", asked, p.id), "unset CASTRA_WORKSPACE, or go where the castra.toml of that workspace is"}
	}
	p.Reporter = reporter()
	return p, nil
}

// selected opens what a verb that needs no castra.toml is about.
func selected(workspace *string, all *bool) (*Workspaces, error) {
	s := Selection{Workspace: text(workspace), All: set(all)}
	if s == (Selection{}) {
		s.Workspace = os.Getenv("CASTRA_WORKSPACE")
	}
	return OpenWorkspaces(Environment(), s, reporter())
}

// one is selected for a verb that is about one project.
func one() (*Project, error) {
	ws, err := selected(nil, nil)
	if err != nil {
		return nil, err
	}
	return ws.Single()
}

// prunes opens what prune is about.
func prunes(workspace *string, global, force bool) (*Workspaces, error) {
	o := Environment()
	o.Force = o.Force || force
	s := Selection{Workspace: text(workspace), All: global}
	if s == (Selection{}) {
		s.Workspace = os.Getenv("CASTRA_WORKSPACE")
	}
	ws, err := OpenWorkspaces(o, s, reporter())
	if err != nil {
		return nil, err
	}
	if global {
		ws.underHome()
	} else if _, err := ws.Single(); err != nil {
		return nil, err
	}
	return ws, nil
}

// reporter prints events to stderr: results alone go to stdout. A reader of
// these that goes away must not end a verb half way, as SIGPIPE would.
func reporter() event.Reporter {
	notBroken.Do(func() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) })
	if os.Getenv("CASTRA_JSON") == "1" {
		return report.NewJSON(os.Stderr)
	}
	width, height, _ := term.GetSize(int(os.Stderr.Fd()))
	if os.Getenv("TERM") == "dumb" {
		width = 0 // nothing can be rewritten there
	}
	return report.NewText(os.Stderr, report.TextOptions{
		Color: colored(os.Stderr),
		Width: width, Height: height, Verbose: os.Getenv("MAGEFILE_VERBOSE") == "1",
	})
}

var notBroken sync.Once

func colored(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// show prints a result on stdout, as JSON or as text.
func show(err error, result any, asJSON *bool, text func(io.Writer) error) error {
	if err != nil {
		return err
	}
	if !set(asJSON) {
		return text(report.Clean(os.Stdout))
	}
	out, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, report.EscapeJSON(string(out))+"\n")
	return err
}

func set(flag *bool) bool { return flag != nil && *flag }

func text(flag *string) string {
	if flag == nil {
		return ""
	}
	return *flag
}

func number(flag *int) int {
	if flag == nil {
		return 0
	}
	return *flag
}
