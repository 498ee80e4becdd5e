package qemutest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// recordDir, beside the links, holds a file for each fake QEMU ever started
// there. A living one holds a lock on its file.
const recordDir = "fakes"

// stubsDir, beside the links, holds programs of the guests.
const stubsDir = "stubs"

// biosFile is the fake's firmware, in the directory that it names at -L help.
const biosFile = "bios-256k.bin"

// Install makes a directory with the fakes, to be put first in PATH. When the
// test ends, so does every fake QEMU started from it.
func Install(t testing.TB) (dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("fake QEMU: %v", err)
	}
	dir = t.TempDir()
	for _, name := range []string{recordDir, guestDirs, stubsDir, twinsDir} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatalf("fake QEMU: %v", err)
		}
	}
	if err := writeStubs(filepath.Join(dir, stubsDir)); err != nil {
		t.Fatalf("fake QEMU: %v", err)
	}
	for _, name := range programs {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatalf("fake QEMU: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, biosFile), nil, 0o600); err != nil {
		t.Fatalf("fake QEMU: %v", err)
	}
	if err := writeFirmware(dir); err != nil {
		t.Fatalf("fake QEMU: %v", err)
	}
	t.Cleanup(func() {
		for _, pid := range Running(t, dir) {
			end(t, dir, pid)
		}
	})
	return dir
}

// Running lists the pids of the fake QEMUs that were started from dir and
// live.
func Running(t testing.TB, dir string) []int {
	t.Helper()
	records, err := os.ReadDir(filepath.Join(dir, recordDir))
	if err != nil {
		t.Fatalf("fake QEMU: %v", err)
	}
	var pids []int
	for _, r := range records {
		pid, err := strconv.Atoi(r.Name())
		if err != nil {
			t.Errorf("fake QEMU: strange record %s", r.Name())
		} else if lives(dir, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// lives says whether pid holds the lock on its own record. Only the fake
// itself can.
func lives(dir string, pid int) bool {
	f, err := os.Open(filepath.Join(dir, recordDir, strconv.Itoa(pid)))
	if err != nil {
		return false
	}
	defer f.Close()
	holder, err := lockHolder(f)
	return err == nil && holder == pid
}

func end(t testing.TB, dir string, pid int) {
	process, err := os.FindProcess(pid)
	if err != nil {
		return // it has ended
	}
	defer func() { _ = process.Release() }()
	if !lives(dir, pid) {
		return // the handle may belong to another process with this pid
	}
	if err := process.Kill(); err != nil && lives(dir, pid) {
		t.Errorf("fake QEMU: end pid %d: %v", pid, err)
	}
	tick, limit := time.NewTicker(5*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for lives(dir, pid) {
		select {
		case <-tick.C:
		case <-limit:
			t.Errorf("fake QEMU: pid %d does not end", pid)
			return
		}
	}
}

// home is the directory that Install made, for the fake that runs from it or
// by a link to what is in it.
func home() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	for err == nil {
		if path, err = filepath.Abs(path); err != nil {
			break
		}
		dir := filepath.Dir(path)
		if _, missing := os.Stat(filepath.Join(dir, recordDir)); missing == nil {
			return dir, nil
		}
		var to string
		if to, err = os.Readlink(path); err == nil && !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return "", err
}

// record enters this process into the list and keeps it there until it ends.
func record(dir string) error {
	path := filepath.Join(dir, recordDir, strconv.Itoa(os.Getpid()))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	held = append(held, f)
	return lockWhole(f)
}

// started is the number of fake QEMUs that were ever started from dir.
func started(dir string) int {
	records, _ := os.ReadDir(filepath.Join(dir, recordDir))
	return len(records)
}

// held keeps files open whose locks last as long as the process.
var held []*os.File
