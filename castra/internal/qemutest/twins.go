package qemutest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// twinsDir, beside the links, holds a file for each VM ever started, which its
// fake locks for as long as it lives, and twinsFile a line for each fake that
// found the lock taken.
const (
	twinsDir  = "vms"
	twinsFile = "twins"
)

// partingTime is how long a fake that is ending may still have its lock: the
// kernel gives back that on its pidfile first.
const partingTime = 5 * time.Second

// watchTwins takes the lock that only one fake of a VM can have. A VM is known
// by the path of its pidfile. One that another has is the fault that is looked
// for: it is put on record, and the fake goes on, as QEMU would.
func (m *machine) watchTwins() error {
	if m.pidfile == "" {
		return nil
	}
	vm, err := filepath.Abs(m.pidfile)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(vm))
	f, err := os.OpenFile(filepath.Join(m.dir, twinsDir, hex.EncodeToString(sum[:8])), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("twins: %w", err)
	}
	held = append(held, f)
	for end := time.Now().Add(partingTime); lockWhole(f) != nil; <-time.After(time.Millisecond) {
		if time.Now().Before(end) {
			continue
		}
		other, _ := lockHolder(f)
		return m.noteTwin(vm + ": pid " + strconv.Itoa(os.Getpid()) + " beside pid " + strconv.Itoa(other))
	}
	return nil
}

func (m *machine) noteTwin(line string) error {
	f, err := os.OpenFile(filepath.Join(m.dir, twinsFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("twins: %w", err)
	}
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	return err
}

// Twins tells of each fake QEMU that was started from dir while another of the
// same VM lived.
func Twins(t testing.TB, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, twinsFile))
	if err != nil && !os.IsNotExist(err) {
		t.Fatalf("fake QEMU: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")[:strings.Count(string(text), "\n")]
}
