package qemutest

import "sync"

// runState is what query-status tells, and whether the guest runs.
type runState struct {
	mu     sync.Mutex
	status string
	boot   func() // called when the guest first runs, then nil
}

func newRunState(status string, boot func()) *runState {
	return &runState{status: status, boot: boot}
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
	if r.status != "running" {
		boot = nil
	}
	if boot != nil {
		r.boot = nil
	}
	r.mu.Unlock()
	if boot != nil {
		boot()
	}
}
