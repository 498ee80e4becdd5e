package workspace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
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

// RemoveLegacy removes what an earlier program of this name left and nothing
// uses: logs/bus and broker.pid. It gives what went. A symlink in their place,
// or the pidfile of a VM that happens to be called broker, is left.
func (w *Workspace) RemoveLegacy() ([]Item, error) {
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", w.Root, err)
	}
	defer root.Close()
	var gone []Item
	var faults []error
	remove := func(name string) {
		item := Item{name, "legacy", host.TreeUsage(root.FS(), name)}
		if err := root.RemoveAll(name); err != nil {
			faults = append(faults, fmt.Errorf("remove %s: %w", w.join(name), err))
			return
		}
		gone = append(gone, item)
	}
	if st, err := root.Lstat(logsName); err == nil && st.IsDir() {
		bus := path.Join(logsName, legacyBus)
		if st, err := root.Lstat(bus); err == nil && st.IsDir() && !mounted(w.join(bus), host.MountPoints()) {
			remove(bus)
		}
	}
	pidfile := legacyBroker + pidSuffix
	if st, err := root.Lstat(pidfile); err == nil && st.Mode().IsRegular() && !w.hasVM(legacyBroker) && !locked(w.Pidfile(legacyBroker)) {
		remove(pidfile)
	}
	return gone, errors.Join(faults...)
}

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
