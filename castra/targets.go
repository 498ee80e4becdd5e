package castra

//mage:multiline

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"golang.org/x/term"

	"castra.example/castra/castra/event"
	"castra.example/castra/castra/internal/report"
)

// Up starts the project's VMs and bootstraps them.
// It makes the workspace, an overlay and a seed for each VM that does not run,
// and leaves alone what runs as configured.
// CASTRA_BOOTSTRAP (skip, auto, always, or web=always,db=skip) overrides the
// bootstrap mode; CASTRA_QCOW is the image of VMs that name none;
// CASTRA_FORCE=1 goes on with too little memory or disk.
func Up(ctx context.Context) error {
	p, err := Open(environment())
	if err != nil {
		return exit(err)
	}
	p.Reporter = reporter()
	return exit(p.Up(ctx, upEnvironment()))
}

// Down ends the project's VMs and discards their overlays.
// What is kept is cache: images, logs, the workspace's key.
func Down(ctx context.Context) error {
	p, err := openRecorded()
	if err != nil {
		return exit(err)
	}
	return exit(p.Down(ctx))
}

// Clean removes the project's images, overlays and logs.
// All of these are caches, made again when needed.
// It refuses while VMs run; CASTRA_FORCE=1 stops them first.
func Clean(ctx context.Context) error {
	p, err := openRecorded()
	if err != nil {
		return exit(err)
	}
	return exit(p.Clean(ctx))
}

// Status shows every VM of the project.
// It changes nothing.
func Status(
	ctx context.Context,
	json *bool, // print JSON (default: a table)
) error {
	p, err := openRecorded()
	if err != nil {
		return exit(err)
	}
	status, err := p.Status(ctx)
	return exit(show(err, status, json, status.write))
}

// Ports shows the forwards from this computer to the guests.
// It changes nothing.
func Ports(
	ctx context.Context,
	json *bool, // print JSON (default: a table)
	active *bool, // only forwards in force (default: all)
) error {
	p, err := openRecorded()
	if err != nil {
		return exit(err)
	}
	ports, err := p.Ports(ctx)
	return exit(show(err, ports, json, func(w io.Writer) error { return ports.write(w, set(active)) }))
}

// Plan shows what up would do.
// It prints images, overlays and QEMU's command lines, and changes nothing.
func Plan(
	ctx context.Context,
	json *bool, // print JSON (default: text)
) error {
	p, err := Open(environment())
	if err != nil {
		return exit(err)
	}
	plan, err := p.Plan(ctx, upEnvironment())
	return exit(show(err, plan, json, plan.write))
}

// Exec runs a command in a guest.
// Its exit status is mage's. The command is one argument: mage exec web-0 "uname -a".
func Exec(ctx context.Context, vm, cmd string) error {
	p, err := openRecorded()
	if err != nil {
		return exit(err)
	}
	return exit(p.Exec(ctx, vm, Command{cmd, os.Stdin, os.Stdout, os.Stderr}))
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

// The rest of this file is what the targets share: reading the environment
// and flags, and printing. Nothing below looks like a target to mage.

func environment() Options {
	return Options{
		Config:      os.Getenv("CASTRA_CONFIG"),
		Home:        os.Getenv("CASTRA_HOME"),
		Accelerator: os.Getenv("CASTRA_ACCEL"),
		BaseImage:   os.Getenv("CASTRA_QCOW"),
		Force:       os.Getenv("CASTRA_FORCE") == "1",
	}
}

func upEnvironment() UpOptions { return UpOptions{Bootstrap: os.Getenv("CASTRA_BOOTSTRAP")} }

// openRecorded opens the project also when its castra.toml has become
// unreadable since its VMs were started, and then says so.
func openRecorded() (*Project, error) {
	p, fault, err := OpenRecorded(environment())
	if err != nil {
		return nil, err
	}
	p.Reporter = reporter()
	if fault != nil {
		p.say(event.Message{Level: "warning", Text: fault.Error(), Hint: "going on with what was recorded when the VMs were started"})
	}
	return p, nil
}

// reporter prints events to stderr: results alone go to stdout.
func reporter() event.Reporter {
	if os.Getenv("CASTRA_JSON") == "1" {
		return report.NewJSON(os.Stderr)
	}
	fd := int(os.Stderr.Fd())
	terminal := term.IsTerminal(fd)
	width, _, _ := term.GetSize(fd)
	return report.NewText(os.Stderr, report.TextOptions{
		Color: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		Width: width, Verbose: os.Getenv("MAGEFILE_VERBOSE") == "1",
	})
}

// show prints a result on stdout, as JSON or as text.
func show(err error, result any, asJSON *bool, text func(io.Writer) error) error {
	if err != nil {
		return err
	}
	if !set(asJSON) {
		return text(os.Stdout)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(result)
}

func set(flag *bool) bool { return flag != nil && *flag }

func text(flag *string) string {
	if flag == nil {
		return ""
	}
	return *flag
}
