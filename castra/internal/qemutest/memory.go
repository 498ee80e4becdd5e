package qemutest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// memory is a memory-backend object.
type memory struct {
	kind  string // "memory-backend-memfd"
	id    string
	size  int64
	path  string // of memory-backend-file
	share bool
	file  *os.File
}

// memoryKeys are what QEMU knows of such an object, and castra may set.
var memoryKeys = []string{"qom-type", "id", "size", "share", "mem-path", "prealloc", "merge", "dump", "reserve", "seal", "hugetlb", "readonly"}

// addObject reads an -object in JSON. The other form is skipped: castra has
// no need of it.
func (o *options) addObject(value string) error {
	if value == "" || value[0] != '{' {
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(value), &fields); err != nil {
		return err
	}
	var object struct {
		Type  string `json:"qom-type"`
		ID    string
		Size  int64
		Path  string `json:"mem-path"`
		Share *bool
	}
	if err := json.Unmarshal([]byte(value), &object); err != nil {
		return err
	}
	if object.Type != "memory-backend-memfd" && object.Type != "memory-backend-file" {
		return fmt.Errorf("Parameter 'qom-type' does not accept value '%s'", object.Type) //nolint:staticcheck // QEMU's words
	}
	needed := []string{"id", "size"}
	if object.Type == "memory-backend-file" {
		needed = append(needed, "mem-path")
	}
	for _, key := range needed {
		if fields[key] == nil {
			return fmt.Errorf("Parameter '%s' is missing", key) //nolint:staticcheck // QEMU's words
		}
	}
	for key := range fields {
		if !slices.Contains(memoryKeys, key) {
			return fmt.Errorf("Parameter '%s' is unexpected", key) //nolint:staticcheck // QEMU's words
		}
	}
	m := memory{kind: object.Type, id: object.ID, size: object.Size, path: object.Path, share: object.Type == "memory-backend-memfd"}
	if object.Share != nil {
		m.share = *object.Share
	}
	o.objects = append(o.objects, m)
	return nil
}

// checkMemory looks whether the machine's memory is there and of its size.
func (o *options) checkMemory() error {
	if o.backend == "" {
		return nil
	}
	m := o.memory()
	switch {
	case m == nil:
		return fmt.Errorf("Memory backend '%s' not found", o.backend) //nolint:staticcheck // QEMU's words
	case m.size != o.shape.Memory:
		return errors.New("Machine memory size does not match the size of the memory backend") //nolint:staticcheck // QEMU's words
	}
	return nil
}

// memory is the object that the guest's memory is in, nil where there is none.
func (o *options) memory() *memory {
	for i, m := range o.objects {
		if m.id == o.backend && o.backend != "" {
			return &o.objects[i]
		}
	}
	return nil
}

// open does as QEMU 7.2: a file that is missing is made, an empty one is
// given its size, one of another size than a larger one is refused, and it
// must be writable even where it is never written to.
func (m *memory) open() (err error) {
	if m.kind == "memory-backend-memfd" {
		if m.file, err = memoryFile(m.kind); err == nil {
			err = m.file.Truncate(m.size)
		}
		return err
	}
	m.file, err = os.OpenFile(m.path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("can't open backing store %s for guest RAM: %s", m.path, reason(err))
	}
	stat, err := m.file.Stat()
	switch {
	case err != nil:
		return err
	case stat.Size() == 0:
		return m.file.Truncate(m.size)
	case stat.Size() < m.size:
		return fmt.Errorf("backing store size 0x%x does not match 'size' option 0x%x", stat.Size(), m.size)
	}
	return nil
}

// mark writes the guest's memory: text, and zeros behind it. That of a
// private mapping of a file stays out of the file.
func (m *memory) mark(text string) error {
	if m == nil || !m.share {
		return nil
	}
	_, err := m.file.WriteAt([]byte(text), 0)
	return err
}

// holds tells whether the memory begins with text.
func (m *memory) holds(text string) bool {
	found := make([]byte, len(text))
	_, err := io.ReadFull(io.NewSectionReader(m.file, 0, m.size), found)
	return err == nil && string(found) == text
}
