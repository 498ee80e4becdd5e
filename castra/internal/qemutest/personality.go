package qemutest

import (
	"strings"
	"time"
)

// Personality is what a fake does differently, a comma list of words:
//
//	exit-1              one line on stderr, then status 1, at once
//	exit-late           the same after 300 ms
//	crash               ends itself by SIGSEGV after 100 ms
//	no-pidfile          status 0 without having written a pidfile
//	port-taken          the first forward cannot be bound
//	hang                serves neither QMP nor guest, ignores SIGTERM
//	ignore-powerdown    system_powerdown is accepted and nothing follows
//	ignore-term         SIGTERM is ignored
//	paused, io-error,   query-status says so, the guest does not run, and
//	shutdown            powerdown has no effect
//	no-qmp-greeting     the monitor accepts and says nothing
//	no-sandbox          QEMU takes -sandbox and is not held in
//	no-ssh              the guest's SSH port accepts and says nothing
//	wrong-host-key      the guest has another host key than its seed says
//	refuse-login        the guest lets nobody in
//	open-login          the guest lets everybody in
//	restore-refused     no saved state is taken: status 1, as QEMU
//	restore-silent      a restored guest runs and never answers
//	flood-serial        the guest prints to its serial port without end
//	flood-output        the same of QEMU itself, to its standard error
//	migrate-fails       a migration ends as failed, half of the state sent
//	migrate-stuck       a migration stays active, and nothing is sent
//	migrate-silent      the monitor says nothing any more once asked to migrate
//	no-ignore-shared    QEMU does not know the capability x-ignore-shared
//	slow-start=DURATION time until it takes its pidfile (default 0)
//	slow-boot=DURATION  time until the guest answers (default 50 ms)
//	slow-exit=DURATION  time between the last reply and the end of the process
//
// and for qemu-img: exit-1, missing-output, signal, big-stderr.
//
// A word may be meant for one VM alone: "web-0:hang,slow-boot=1s".
type Personality string

// For returns what applies to the VM called name.
func (p Personality) For(name string) Personality {
	var words []string
	for word := range strings.SplitSeq(string(p), ",") {
		vm, own, addressed := strings.Cut(strings.TrimSpace(word), ":")
		switch {
		case !addressed:
			words = append(words, vm)
		case vm == name:
			words = append(words, own)
		}
	}
	return Personality(strings.Join(words, ","))
}

// Has says whether word is among p's words.
func (p Personality) Has(word string) bool {
	_, ok := p.value(word)
	return ok
}

// Duration is the value of word=DURATION, or otherwise.
func (p Personality) Duration(word string, otherwise time.Duration) time.Duration {
	value, _ := p.value(word)
	if d, err := time.ParseDuration(value); err == nil {
		return d
	}
	return otherwise
}

func (p Personality) value(word string) (string, bool) {
	for w := range strings.SplitSeq(string(p), ",") {
		if name, value, _ := strings.Cut(w, "="); name == word {
			return value, true
		}
	}
	return "", false
}
