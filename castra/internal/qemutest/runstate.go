package qemutest

import "sync"

// runState is what query-status tells, and whether the guest runs.
type runState struct {
	mu     sync.Mutex
	status string
	moved  func(running bool) // called at every change
	boot   func()             // called when the guest first runs, then nil
}

func newRunState(status string, moved func(running bool), boot func()) *runState {
	return &runState{status: status, moved: moved, boot: boot}
}

func (r *runState) get() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// set changes the status. A disk that is full stays full.
func (r *runState) set(status string) {
	r.mu.Lock()
	if r.status != "io-error" {
		r.status = status
	}
	r.mu.Unlock()
	r.start()
}

// start boots the guest if it runs and has not been booted.
func (r *runState) start() {
	r.mu.Lock()
	boot := r.boot
	running := r.status == "running"
	if !running {
		boot = nil
	}
	if boot != nil {
		r.boot = nil
	}
	r.mu.Unlock()
	r.moved(running)
	if boot != nil {
		boot()
	}
}
