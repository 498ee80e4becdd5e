package castra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/config"
	"castra.example/castra/castra/internal/host"
	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/report"
)

// Diagnosis is what this computer can and cannot do. Its JSON form is that of
// `mage doctor -json`.
type Diagnosis struct {
	// OK is false where Up could not work.
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// Check is one thing that was looked at.
type Check struct {
	Name string `json:"name"`
	// State is "ok", "warning" (Up works, or would with what Fix says), or
	// "fault" (Up cannot work).
	State  string `json:"state"`
	Detail string `json:"detail"`
	// Fix is what to do, a command where there is one; empty where all is well.
	Fix string `json:"fix,omitempty"`
}

const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkFault   = "fault"
)

// Bounds in bytes below which a diagnosis warns, or finds a fault.
const (
	leastMemory     = 64 << 20   // of the smallest VM there may be
	ordinaryMemory  = 2048 << 20 // of a VM that does not say
	comfortableDisk = 2 << 30
)

// UnfitHostError says: Up cannot work here.
type UnfitHostError struct {
	Checks []string // names of those that found a fault
}

func (e *UnfitHostError) Error() string {
	return "up cannot work here: " + strings.Join(e.Checks, ", ")
}

// Hint says what to do next.
func (e *UnfitHostError) Hint() string {
	return "mage doctor says after each fault how to mend it; then run it again"
}

// Diagnose looks at this computer, and at the project that the options lead
// to. It changes nothing. Programs that do not answer within 5 s are faults;
// the only error is that of a ctx that ended.
func Diagnose(ctx context.Context, o Options) (*Diagnosis, error) {
	home, _ := homeOf(o)
	project, configErr := Open(o)
	var vms []config.VM
	root := home
	if project != nil {
		vms, root = project.config.VMs, project.root
	}
	checks := []Check{checkArchitecture()}
	checks = append(checks, checkGuests(ctx, vms, o)...)
	checks = append(checks, checkAccelerator(o.Accelerator, runtime.GOOS, qemu.KVMDevice), checkMemory(vms, o.Force))
	if root != "" {
		checks = append(checks, checkDisk(root, vms, o.Force))
	}
	checks = append(checks, checkState(root, configErr), checkImages(home, vms, o), checkSmall(home, vms),
		Check{"ssh", checkOK, "built in: no program of this computer is needed", ""}, checkConfig(project, configErr))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d := &Diagnosis{Checks: checks}
	d.OK = len(d.faults()) == 0
	return d, nil
}

// check is fine without an error, and else in that state. An error that
// begins with the name of the check need not say it twice.
func check(name, fine string, err error, otherwise string) Check {
	if err == nil {
		return Check{name, checkOK, fine, ""}
	}
	return Check{name, otherwise, strings.TrimLeft(strings.TrimPrefix(err.Error(), name), ": "), hint(err)}
}

func checkArchitecture() Check {
	if qemu.Machine(goarch) == "" {
		return Check{"architecture", checkFault, goarch + " is none that Castra has guests for", "use a computer that is amd64 or arm64"}
	}
	return Check{"architecture", checkOK, runtime.GOOS + "/" + goarch + ", and so are guests that name no arch", ""}
}

// checkAccelerator is never a fault where nothing was asked for: guests also
// run by emulation.
func checkAccelerator(want, goos, device string) Check {
	const name = "accelerator"
	got, err := qemu.ChooseAccelerator(want, goos, device)
	if err != nil || !got.Emulated() {
		return check(name, got.Name, err, checkFault)
	}
	detail := "tcg, emulation: several times slower, and no boundary that hostile guests respect: " + got.Reason
	if want != "" {
		return Check{name, checkWarning, detail, "unset CASTRA_ACCEL to take what there is"}
	}
	_, err = qemu.ChooseAccelerator(qemu.Hardware(goos), goos, device)
	var denied *qemu.AcceleratorError
	if !errors.As(err, &denied) {
		return check(name, qemu.Hardware(goos), nil, "") // it has come up meanwhile
	}
	return Check{name, checkWarning, detail, denied.Enable()}
}

func checkMemory(vms []config.VM, force bool) Check {
	need := uint64(0)
	for _, vm := range vms {
		need += uint64(vm.MemoryMiB) << 20
	}
	if len(vms) == 0 {
		need = ordinaryMemory
	}
	free, err := host.AvailableMemory()
	total, totalErr := host.TotalMemory()
	if err = errors.Join(err, totalErr); err != nil {
		return Check{"memory", checkOK, "not known on " + runtime.GOOS, ""}
	}
	return checkRoomFor("memory", fmt.Sprintf("%s available of %s", room(free), room(total)), free, need, leastMemory, force,
		"start fewer VMs, give them less memory in castra.toml, or end other programs")
}

func checkDisk(root string, vms []config.VM, force bool) Check {
	at := existing(root)
	free, err := host.FreeDisk(at)
	if err != nil {
		return check("disk", "", err, checkWarning)
	}
	need := max(comfortableDisk, uint64(len(vms))*diskPerVM)
	return checkRoomFor("disk", fmt.Sprintf("%s free for %s", room(free), root), free, need, diskPerVM, force,
		"make room there, or set CASTRA_HOME to a directory on another disk")
}

// checkRoomFor is a fault where not even one VM has room, unless up goes on
// all the same.
func checkRoomFor(name, detail string, free, need, least uint64, force bool, fix string) Check {
	switch {
	case free < least && !force:
		return Check{name, checkFault, fmt.Sprintf("%s; a VM needs %s", detail, room(least)), fix}
	case free < need:
		return Check{name, checkWarning, fmt.Sprintf("%s; %s should be", detail, room(need)), fix}
	default:
		return Check{name, checkOK, detail, ""}
	}
}

func room(bytes uint64) string { return report.Bytes(int64(bytes)) }

// existing is path, or the nearest directory above it that there is.
func existing(path string) string {
	for {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// checkState tells whether up can keep its state in root.
func checkState(root string, configErr error) Check {
	const name, other = "state", "set CASTRA_HOME to a directory of yours"
	if as[*usageError](configErr) {
		return check(name, "", configErr, checkFault)
	}
	if root == "" {
		return check(name, "", errNoHome, checkFault)
	}
	at := existing(root)
	var st unix.Stat_t
	if err := unix.Stat(at, &st); err != nil {
		return Check{name, checkFault, fmt.Sprintf("%s: %v", at, err), other}
	}
	uid := os.Getuid()
	switch err := unix.Access(at, unix.W_OK|unix.X_OK); {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return Check{name, checkFault, at + " is not a directory", other + ", or move that file away"}
	case err != nil:
		return Check{name, checkFault, fmt.Sprintf("%s cannot be written: %v", at, err), other}
	case at == root && int(st.Uid) != uid:
		return Check{name, checkFault, fmt.Sprintf("%s belongs to uid %d, and you are uid %d", root, st.Uid, uid),
			fmt.Sprintf("run as its owner, or sudo chown -R %d %s", uid, word(root))}
	case at == root:
		return Check{name, checkOK, root, ""}
	default:
		return Check{name, checkOK, root + ", to be made", ""}
	}
}

// checkConfig tells what castra.toml up would use.
func checkConfig(p *Project, err error) Check {
	const name = "castra.toml"
	var faults config.Faults
	switch {
	case p != nil && p.config.Synthetic:
		return Check{name, checkOK, "none in reach; one small VM is made up", ""}
	case p != nil:
		return Check{name, checkOK, fmt.Sprintf("%s: project %s, VMs %s", p.config.File, p.config.Name, strings.Join(vmNames(p.config.VMs), ", ")), ""}
	case as[*usageError](err):
		return Check{name, checkWarning, "not looked for: there is no place for its state", hint(err)}
	case as[*config.NotFoundError](err):
		return Check{name, checkWarning, err.Error(), "mage init"}
	case errors.As(err, &faults) && len(faults) > 1:
		return Check{name, checkFault, fmt.Sprintf("%v (and %d more; mage plan tells all)", faults[0], len(faults)-1), faults[0].Hint()}
	default:
		return check(name, "", err, checkFault)
	}
}

func (d *Diagnosis) faults() []string {
	var names []string
	for _, c := range d.Checks {
		if c.State == checkFault {
			names = append(names, c.Name)
		}
	}
	return names
}

// err is nil where up can work, and where there is no diagnosis.
func (d *Diagnosis) err() error {
	if d == nil || d.OK {
		return nil
	}
	return &UnfitHostError{d.faults()}
}

// Bounds of the printed diagnosis in columns.
const (
	diagnosisWidth = 80
	stateWidth     = 9
)

// write prints the diagnosis for people, in 80 columns but for words that are
// longer.
func (d *Diagnosis) write(w io.Writer) error {
	var b strings.Builder
	for _, c := range d.Checks {
		wrap(&b, c.State, c.Name+": "+c.Detail)
		if c.Fix != "" {
			wrap(&b, "", "fix: "+c.Fix)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap writes text beside a label, broken between words.
func wrap(b *strings.Builder, label, text string) {
	column := stateWidth
	fmt.Fprintf(b, "%-*s", stateWidth, label)
	for i, word := range strings.Fields(report.Sanitize(text)) {
		width := len([]rune(word))
		switch {
		case i == 0:
		case column+1+width > diagnosisWidth:
			b.WriteString("\n" + strings.Repeat(" ", stateWidth))
			column = stateWidth
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += width
	}
	b.WriteByte('\n')
}
