package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// descriptorLimit bounds a firmware descriptor, in bytes; they have some 700.
const descriptorLimit = 64 << 10

// descriptor is what is needed of QEMU's docs/interop/firmware.json.
type descriptor struct {
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Device     string
		Mode       string
		Executable flashFile
		Template   flashFile `json:"nvram-template"`
	}
	Targets []struct {
		Architecture string
		Machines     []string
	}
	Features []string
}

type flashFile struct{ Filename, Format string }

// descriptors are the paths of all that hold, the most important first: sorted
// by name over all directories, where a more specific directory's file hides
// those of its name, and an empty one hides only.
func descriptors(dirs []string) []string {
	byName := map[string]string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // most of them are not there
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".json") {
				byName[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if st, err := os.Stat(byName[name]); err != nil || st.Size() > 0 {
			paths = append(paths, byName[name])
		}
	}
	return paths
}

func readDescriptor(path string) (descriptor, error) {
	var d descriptor
	f, _, err := openRegular(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, descriptorLimit+1))
	switch {
	case err != nil:
		return d, err
	case len(text) > descriptorLimit:
		return d, fmt.Errorf("%s: over %d KiB", path, descriptorLimit>>10)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

var errOtherMachine = errors.New("for another machine")

// suits says why the firmware is none for guests of an architecture. Secure
// boot is of no use here: what keeps the guest out of the variables costs time,
// and keys that are enrolled keep images of one's own from booting.
func (d descriptor) suits(arch string) error {
	sys := systems[arch]
	for _, t := range d.Targets {
		if t.Architecture == sys.arch && slices.ContainsFunc(t.Machines, sys.matches) {
			return d.usable()
		}
	}
	return errOtherMachine
}

func (d descriptor) usable() error {
	switch {
	case !slices.Contains(d.Interfaces, "uefi"):
		return errors.New("no UEFI")
	case d.Mapping.Device != "flash" || d.Mapping.Mode != "" && d.Mapping.Mode != "split":
		return errors.New("no flash memory of two parts")
	}
	for _, feature := range []string{"requires-smm", "enrolled-keys"} {
		if slices.Contains(d.Features, feature) {
			return fmt.Errorf("it has %s", feature)
		}
	}
	for _, part := range []flashFile{d.Mapping.Executable, d.Mapping.Template} {
		switch {
		case part.Format != "raw" && part.Format != "qcow2":
			return fmt.Errorf("format %q", part.Format)
		case !filepath.IsAbs(part.Filename):
			return fmt.Errorf("%q is no absolute path", part.Filename)
		}
	}
	return nil
}

func (d descriptor) uefi() UEFI {
	code, vars := d.Mapping.Executable, d.Mapping.Template
	return UEFI{Code: code.Filename, CodeFormat: code.Format, Vars: vars.Filename, VarsFormat: vars.Format}
}

// described is the firmware that the descriptors name, and the files that were
// looked at. Firmware that knows secure boot, and does not insist, comes last.
func described(dirs []string, arch string) (found []UEFI, tried []string) {
	var secure []UEFI
	for _, file := range descriptors(dirs) {
		d, err := readDescriptor(file)
		if err == nil {
			if err = d.suits(arch); err != nil {
				err = fmt.Errorf("%s: %w", file, err)
			}
		}
		switch {
		case errors.Is(err, errOtherMachine):
		case err != nil:
			tried = append(tried, strings.TrimPrefix(err.Error(), "open "))
		case slices.Contains(d.Features, "secure-boot"):
			secure = append(secure, d.uefi())
		default:
			found = append(found, d.uefi())
		}
	}
	return append(found, secure...), tried
}

// matches tells whether a descriptor's pattern means the machine of this architecture, of any version.
func (s system) matches(pattern string) bool {
	matched, _ := path.Match(pattern, s.fullName+"0.0") // a pattern that is none matches nothing
	return matched || strings.HasPrefix(pattern, s.fullName)
}
