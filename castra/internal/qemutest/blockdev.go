package qemutest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// node is a -blockdev.
type node struct {
	text     string // as given
	name     string
	driver   string // "raw" or "qcow2"
	file     string
	readOnly bool
}

// nodeKeys are what castra may set of a node and of the file below it.
var nodeKeys = map[string][]string{
	"":      {"node-name", "driver", "read-only", "file", "discard", "detect-zeroes", "cache", "auto-read-only"},
	"file.": {"driver", "filename", "locking", "aio", "discard", "detect-zeroes", "cache", "auto-read-only"},
}

// addNode reads a -blockdev in JSON.
func (o *options) addNode(value string) error {
	var keys, fileKeys map[string]json.RawMessage
	if err := json.Unmarshal([]byte(value), &keys); err != nil {
		return err
	}
	if err := json.Unmarshal(keys["file"], &fileKeys); err != nil {
		return errors.New("A block device must be specified for \"file\"") //nolint:staticcheck // QEMU's words
	}
	var read struct {
		Name     string `json:"node-name"`
		Driver   string
		ReadOnly bool `json:"read-only"`
		File     struct{ Driver, Filename string }
	}
	if err := json.Unmarshal([]byte(value), &read); err != nil {
		return err
	}
	n := node{value, read.Name, read.Driver, read.File.Filename, read.ReadOnly}
	switch {
	case n.driver != "raw" && n.driver != "qcow2":
		return fmt.Errorf("Parameter 'driver' does not accept value '%s'", n.driver) //nolint:staticcheck // QEMU's words
	case read.File.Driver != "file":
		return fmt.Errorf("Parameter 'driver' does not accept value '%s'", read.File.Driver) //nolint:staticcheck // QEMU's words
	case slices.ContainsFunc(o.nodes, func(other node) bool { return other.name == n.name }):
		return fmt.Errorf("Duplicate nodes with node-name='%s'", n.name) //nolint:staticcheck // QEMU's words
	}
	for prefix, given := range map[string]map[string]json.RawMessage{"": keys, "file.": fileKeys} {
		for key := range given {
			if !slices.Contains(nodeKeys[prefix], key) {
				return fmt.Errorf("Parameter '%s%s' is unexpected", prefix, key) //nolint:staticcheck // QEMU's words
			}
		}
	}
	o.nodes = append(o.nodes, n)
	return nil
}

// open opens the image as QEMU does, and tells the size of the disk in it.
func (n node) open() (*os.File, int64, error) {
	flag := os.O_RDWR
	if n.readOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(n.file, flag, 0)
	if err != nil {
		return nil, 0, n.fault(fmt.Errorf("Could not open '%s': %s", n.file, reason(err))) //nolint:staticcheck // QEMU's words
	}
	held = append(held, f)
	stat, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if n.driver == "raw" {
		return f, (stat.Size() + 511) &^ 511, nil
	}
	header, err := readHeader(f)
	if err != nil {
		return nil, 0, n.fault(errNoQcow2)
	}
	return f, int64(header.Size), nil
}

func (n node) fault(err error) error { return fmt.Errorf("-blockdev %s: %w", n.text, err) }

var errNoQcow2 = errors.New("Image is not in qcow2 format") //nolint:staticcheck // QEMU's words

// assign gives each node its part: those of the machine's flash, the raw
// read-only one is the seed, and what is written to are the disks.
func (o *options) assign() error {
	for i, name := range o.flashNames {
		if name == "" {
			continue
		}
		at := slices.IndexFunc(o.nodes, func(n node) bool { return n.name == name })
		if at < 0 {
			return fmt.Errorf("Property 'cfi.pflash01.drive' can't find value '%s'", name) //nolint:staticcheck // QEMU's words
		}
		o.flash[i] = &o.nodes[at]
	}
	for i := range o.nodes {
		n := &o.nodes[i]
		switch {
		case slices.Contains(o.flash[:], n):
		case n.readOnly && n.driver == "raw":
			o.seed = n.file
		case !n.readOnly && n.driver == "qcow2":
			o.overlays = append(o.overlays, *n)
		}
	}
	return nil
}

// openFlash opens the firmware's code and its variables, which take the sizes
// that the machine has flash for. QEMU lets others write to them meanwhile.
func (m *machine) openFlash() error {
	const block, most, virtFlash = 0x1000, 8 << 20, 64 << 20
	total, virt := int64(0), strings.HasPrefix(m.shape.Machine, "virt-")
	if m.flash[0] == nil && m.flash[1] != nil && !virt {
		return errors.New("pflash1 requires pflash0")
	}
	for i, n := range m.flash {
		if n == nil {
			continue
		}
		f, size, err := n.open()
		total += size
		switch {
		case err != nil:
			return err
		case virt && size != virtFlash:
			return fmt.Errorf("device requires %d bytes, block backend provides %d bytes", virtFlash, size)
		case !virt && (size == 0 || size%block != 0):
			return fmt.Errorf("system firmware block device  has invalid size %d\nqemu-system-%s: info: its size must be a non-zero multiple of 0x%x",
				size, this().name, block)
		case !virt && total > most:
			return fmt.Errorf("combined size of system firmware exceeds %d bytes", most)
		case i == 1 && !n.readOnly && n.driver == "raw":
			m.variables = f
		}
	}
	return nil
}

// varsAt is where the fake firmware keeps its variable, and varsMax what of the file a saved state has.
const (
	varsAt  = 64
	varsMax = 4096
)

// bootByFirmware lets the firmware write to its variables, as OVMF does at every boot.
func (m *machine) bootByFirmware() error {
	if m.variables == nil {
		return nil
	}
	_, err := m.variables.WriteAt(fmt.Appendf(nil, "BootNext of %s, boot %d\n", m.name, m.guest.is.Boot), varsAt)
	return err
}

// readVariables is what of them a saved state has.
func (m *machine) readVariables() []byte {
	if m.variables == nil {
		return nil
	}
	content := make([]byte, varsMax)
	n, _ := m.variables.ReadAt(content, 0) // what cannot be read is not there
	return content[:n]
}

// writeVariables puts those of a saved state into the machine's own file, as QEMU does when the guest goes on.
func (m *machine) writeVariables(content []byte) error {
	if m.variables == nil {
		return nil
	}
	_, err := m.variables.WriteAt(content, 0)
	return err
}
