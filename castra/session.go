package castra

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"castra.example/castra/castra/internal/qemu"
	"castra.example/castra/castra/internal/workspace"
)

// session is the workspace's session while a command changes it: several VMs
// at once, each change on disk before the next act.
type session struct {
	ws   *workspace.Workspace
	mu   sync.Mutex
	data *workspace.Session
	// foreign: a later Castra wrote the file, so it is left as it is.
	foreign error
}

// loadSession reads the session. One that cannot be used as a record, because
// it was cut short or tampered with, is set aside with a warning. One that a
// later Castra wrote is kept from being written over: what runs is then found
// by its pidfile alone.
func loadSession(ws *workspace.Workspace, warn func(vm, text, hint string)) (*session, error) {
	data, err := ws.LoadSession()
	var bad *workspace.RecordError
	if errors.As(err, &bad) && !bad.Newer {
		aside, moveErr := ws.SetAside()
		if moveErr != nil {
			return nil, errors.Join(err, moveErr)
		}
		warn("", fmt.Sprintf("%v; it is kept as %s", err, aside), "what runs is found by its pidfile")
		data, err = ws.LoadSession()
	}
	if errors.As(err, &bad) && bad.Newer {
		return &session{ws: ws, data: &workspace.Session{VMs: map[string]workspace.VM{}}, foreign: err}, nil
	}
	if err != nil {
		return nil, err
	}
	return &session{ws: ws, data: data}, nil
}

func (s *session) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data.Names()
}

// get gives a copy of a VM's record.
func (s *session) get(vm string) (workspace.VM, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.data.VMs[vm]
	return r, ok
}

// put files records, and writes the session.
func (s *session) put(records ...workspace.VM) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.data.VMs[r.Name] = r
	}
	if s.foreign != nil {
		return s.foreign
	}
	return s.ws.SaveSession(s.data)
}

// waits sets the bounds of a shutdown; the next put writes them.
func (s *session) waits(w workspace.Waits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data.Waits = w
}

// drop forgets a VM, and writes the session.
func (s *session) drop(vm string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.data.VMs[vm]; !ok {
		return nil
	}
	delete(s.data.VMs, vm)
	return s.ws.SaveSession(s.data)
}

// target is how qemu finds the VM on record, or the one that the pidfile
// alone tells of.
func target(l workspace.Layout, vm string, r workspace.VM) qemu.Target {
	t := qemu.Target{Name: vm, Pidfile: l.Pidfile(vm), Monitor: l.Monitor(vm), UUID: r.UUID}
	if r.PID == 0 { // with one, it has had its pidfile, and is not being launched any more
		t.Overlay = r.Overlay.Path
	}
	return t
}

// resolve finds the VM that a user means by name: its own name, or the role of
// a lone replica.
func resolve(name string, roles map[string]string, known []string) (string, error) {
	if slices.Contains(known, name) {
		return name, nil
	}
	var ofRole []string
	for _, vm := range known {
		if roles[vm] == name {
			ofRole = append(ofRole, vm)
		}
	}
	if len(ofRole) == 1 {
		return ofRole[0], nil
	}
	return "", &UnknownVMError{name, known}
}

// parallel calls f for every VM at once and joins all faults, in the order of
// the names.
func parallel(vms []string, f func(vm string) error) error {
	faults := map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, vm := range vms {
		wg.Go(func() {
			err := f(vm)
			mu.Lock()
			defer mu.Unlock()
			faults[vm] = err
		})
	}
	wg.Wait()
	var all []error
	for _, vm := range slices.Sorted(maps.Keys(faults)) {
		all = append(all, faults[vm])
	}
	return errors.Join(all...)
}
