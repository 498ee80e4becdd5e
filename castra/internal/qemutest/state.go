package qemutest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stateMagic begins a saved state; the rest is JSON.
const stateMagic = "FAKEQEVM"

// stateMax bounds a state, and so what a saved guest may have in its files.
const stateMax = 16 << 20

// savedState is what migrate sends: the machine, and the guest as it was. What
// the guest has in its memory is in the memory's file, or in Memory.
type savedState struct {
	Shape        shape
	IgnoreShared bool
	Elsewhere    bool   // the memory is in a file
	Memory       string // what it begins with, "" before it first ran
	Status       string // of the machine
	Booted       bool
	Guest        Guest
	Program      string
	Clock        time.Time
	Workload     time.Duration
	Seed         seedData
	Files        map[string]savedFile
	Variables    []byte `json:",omitempty"` // of UEFI firmware
}

// savedFile is a file in the home of the guest's commands.
type savedFile struct {
	Mode fs.FileMode
	Data []byte
}

func (m *machine) encodeState() ([]byte, error) {
	s := savedState{
		Shape: m.shape, IgnoreShared: m.migration.ignoresShared(), Status: m.status.get(),
		Booted: m.hasBooted(), Seed: m.guestSeed, Variables: m.readVariables(),
	}
	ram := m.memory()
	s.Elsewhere = s.IgnoreShared && ram != nil && ram.share
	m.guest.mu.Lock()
	s.Guest, s.Program, s.Memory = m.guest.current(), m.guest.program, m.guest.memory
	s.Clock, s.Workload = m.guest.now()
	m.guest.mu.Unlock()
	dir, err := m.guestDir()
	if err != nil {
		return nil, err
	}
	if s.Files, err = packFiles(dir); err != nil {
		return nil, err
	}
	text, err := json.Marshal(s)
	return append([]byte(stateMagic), text...), err
}

// packFiles reads the directories and the regular files below dir.
func packFiles(dir string) (map[string]savedFile, error) {
	files, size := map[string]savedFile{}, 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil || !info.IsDir() && !info.Mode().IsRegular() {
			return err
		}
		f := savedFile{Mode: info.Mode()}
		if info.Mode().IsRegular() {
			if f.Data, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		if size += len(f.Data); size > stateMax/2 {
			return errors.New("fake: the guest has too many files to be saved")
		}
		files[name] = f
		return nil
	})
	return files, err
}

// unpackFiles writes files into dir. A directory comes before what is in it.
func unpackFiles(dir string, files map[string]savedFile) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, f := range files {
		at := name
		if !f.Mode.IsDir() {
			at = filepath.Dir(name)
		}
		if err := root.MkdirAll(at, 0o700); err != nil {
			return err
		}
		if f.Mode.IsDir() {
			continue
		}
		if err := root.WriteFile(name, f.Data, 0o600); err != nil {
			return err
		}
	}
	for name, f := range files {
		if err := root.Chmod(name, f.Mode.Perm()); err != nil {
			return err
		}
	}
	return nil
}

// loadError is what QEMU says when it does not take a state.
type loadError struct{ detail, cause string }

func (e *loadError) Error() string {
	return strings.TrimPrefix(e.detail+"\nload of migration failed: "+e.cause, "\n")
}

// decodeState reads what encodeState wrote.
func decodeState(r io.Reader) (savedState, error) {
	var s savedState
	text, err := io.ReadAll(io.LimitReader(r, stateMax+1))
	if err != nil {
		return s, &loadError{"", reason(err)}
	}
	rest := text[min(len(stateMagic), len(text)):]
	if string(text[:len(text)-len(rest)]) != stateMagic {
		return s, &loadError{"Not a migration stream", "Invalid argument"}
	}
	if err := json.Unmarshal(rest, &s); err != nil {
		return s, &loadError{"error while loading state section id 2(ram)", "Input/output error"}
	}
	return s, nil
}

// accept says why m cannot go on from s.
func (m *machine) accept(s savedState) error {
	onOff := map[bool]string{true: "on", false: "off"}
	if local := m.migration.ignoresShared(); local != s.IgnoreShared {
		return &loadError{fmt.Sprintf("Capability x-ignore-shared is %s, but received capability is %s", onOff[local], onOff[s.IgnoreShared]),
			"Invalid argument"}
	}
	if err := m.shape.accept(s.Shape); err != nil {
		return &loadError{err.Error(), "Invalid argument"}
	}
	return nil
}

// inherited is the file that this process was started with as descriptor fd.
// Those that it opened itself are closed at an exec.
func inherited(fd int) (*os.File, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil, os.ErrNotExist
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "state"), nil
}

// load goes on from the state in f, as QEMU does after it has answered.
func (m *machine) load(f *os.File) error {
	defer f.Close()
	if m.personality.Has("restore-refused") {
		return &loadError{"", "Invalid argument"}
	}
	s, err := decodeState(f)
	if err != nil {
		return err
	}
	if err := m.accept(s); err != nil {
		return err
	}
	dir, err := m.guestDir()
	if err != nil {
		return err
	}
	if err := errors.Join(unpackFiles(dir, s.Files), m.writeVariables(s.Variables)); err != nil {
		return err
	}
	m.guest.restore(s)
	m.guestSeed, m.restored = s.Seed, &s
	if err := m.network.serve(s.Seed); err != nil {
		return err
	}
	m.migration.end("completed", "")
	m.status.set(s.Status)
	return nil
}

// restore makes g the guest of s, on another VM.
func (g *guest) restore(s savedState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	name, pid := g.is.Name, g.is.PID
	g.is = s.Guest
	g.is.Name, g.is.PID, g.is.Restored = name, pid, true
	g.program, g.memory, g.clock, g.workload = s.Program, s.Memory, s.Clock, s.Workload
	g.write()
}

// hasBooted tells whether the guest answers.
func (m *machine) hasBooted() bool {
	select {
	case <-m.booted:
		return true
	default:
		return false
	}
}
