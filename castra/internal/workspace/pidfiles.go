package workspace

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"castra.example/castra/castra/internal/host"
)

// Names that an earlier program used for what Castra does not have.
const (
	legacyBroker = "broker"
	legacyBus    = "bus"
)

// PidfileVMs names the VMs that have a pidfile, whether they run or not.
// broker.pid is one only while it is locked as a VM's is.
func (w *Workspace) PidfileVMs() ([]string, error) {
	entries, err := os.ReadDir(w.Root)
	if err != nil {
		return nil, err
	}
	var vms []string
	for _, e := range entries {
		vm, ok := strings.CutSuffix(e.Name(), pidSuffix)
		if ok && vm != "" && (vm != legacyBroker || locked(w.Pidfile(vm))) {
			vms = append(vms, vm)
		}
	}
	return vms, nil
}

// TracedVMs names the VMs that have a pidfile, a monitor's socket or an overlay
// in the workspace, sorted. A VM whose pidfile was removed is found by its
// monitor, and what a crash left also when nothing is on record.
func (w *Workspace) TracedVMs() ([]string, error) {
	vms, err := w.PidfileVMs()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(w.Root)
	for _, e := range entries {
		if vm, ok := strings.CutSuffix(e.Name(), monitorSuffix); ok && vm != "" && e.Type() == fs.ModeSocket {
			vms = append(vms, vm)
		}
	}
	disks, diskErr := os.ReadDir(w.Overlays())
	if errors.Is(diskErr, fs.ErrNotExist) {
		diskErr = nil
	}
	before, after := w.overlayAffixes(w.ID)
	for _, e := range disks {
		vm, ok := strings.CutPrefix(e.Name(), before)
		vm, ended := strings.CutSuffix(vm, after)
		if ok && ended && vm != "" && e.Type().IsRegular() {
			vms = append(vms, vm)
		}
	}
	slices.Sort(vms)
	return slices.Compact(vms), errors.Join(err, diskErr)
}

// Legacy lists what an earlier program of this name left and nothing uses:
// logs/bus and broker.pid. A symlink in their place, or the pidfile of a VM
// that happens to be called broker, is not among it.
func (w *Workspace) Legacy() ([]Item, error) {
	root, err := w.OpenRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return w.legacy(root)
}

func (w *Workspace) legacy(root *os.Root) ([]Item, error) {
	entries, err := readDir(root, logsName)
	var items []Item
	for _, e := range entries {
		if e.Name() == legacyBus && e.IsDir() && !w.mounted(path.Join(logsName, legacyBus), host.MountPoints()) {
			items = append(items, Item{Path: path.Join(logsName, legacyBus), Kind: "legacy"})
		}
	}
	pidfile := legacyBroker + pidSuffix
	if st, err := root.Lstat(pidfile); err == nil && st.Mode().IsRegular() && !w.hasVM(legacyBroker) && !locked(w.Pidfile(legacyBroker)) {
		items = append(items, Item{Path: pidfile, Kind: "legacy"})
	}
	for n := range items {
		items[n].Bytes = host.TreeUsage(root.FS(), items[n].Path)
	}
	return items, err
}

// RemoveLegacy removes what Legacy lists, and gives what went.
func (w *Workspace) RemoveLegacy() ([]Item, error) { return w.removeListed(w.legacy) }

// hasVM tells that a VM is on record, or may be: a session that is there and
// cannot be read tells of none.
func (w *Workspace) hasVM(name string) bool {
	s, err := w.LoadSession()
	if err != nil {
		return true
	}
	_, ok := s.VMs[name]
	return ok
}

// locked tells that another process holds a lock on the file as a running QEMU
// does on its pidfile. One that cannot be looked at counts as locked.
func locked(file string) bool {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ELOOP)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	return unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock) != nil || lock.Type != unix.F_UNLCK
}
