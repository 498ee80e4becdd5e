package small

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// moduleSet is what one point of the boot loads: modules by name, each after what it depends on. A module that this kernel
// has built in, or does not have and is optional, is left out.
type moduleSet struct {
	name     string
	want     []string
	optional []string
}

// diskModules are in the initrd.
var diskModules = moduleSet{name: "disk", want: []string{"virtio_pci", "virtio_blk", "ext4"}}

// kernelModules are the modules of one kernel: name to file, and the names of those built in.
type kernelModules struct {
	files   map[string]string
	builtin map[string]bool
}

// module is one that will be loaded, as it is to be stored.
type module struct {
	name string
	data []byte
}

// findModules reads the kernel's module directory below dir.
func findModules(dir string) (*kernelModules, error) {
	m := &kernelModules{files: make(map[string]string), builtin: make(map[string]bool)}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
			return err
		case d.Name() == "modules.builtin":
			text, err := os.ReadFile(path)
			for _, file := range strings.Fields(string(text)) {
				m.builtin[moduleName(file)] = true
			}
			return err
		case strings.Contains(d.Name(), ".ko"):
			m.files[moduleName(path)] = path
		}
		return nil
	})
	if err == nil && len(m.files) == 0 {
		err = fmt.Errorf("the kernel package holds no modules")
	}
	return m, err
}

// moduleName is what the kernel calls the module in a file: its name up to .ko, with underscores.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// order returns the set's modules in the order they must be loaded, without those in loaded, and adds them to it.
func (m *kernelModules) order(set moduleSet, loaded map[string]bool) ([]module, error) {
	var list []module
	var visit func(name string) error
	visit = func(name string) error {
		if loaded[name] || m.builtin[name] {
			return nil
		}
		loaded[name] = true
		file, ok := m.files[name]
		if !ok {
			return fmt.Errorf("kernel module %s: not in the kernel package", name)
		}
		data, err := readModule(file)
		if err != nil {
			return err
		}
		depends, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("kernel module %s: %w", name, err)
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		list = append(list, module{name: name, data: data})
		return nil
	}
	names := set.want
	for _, name := range set.optional {
		if m.files[name] != "" {
			names = append(names[:len(names):len(names)], name)
		}
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// readModule also reads what Debian 13 (xz) and Ubuntu 24.04 (zstd) compress.
func readModule(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	switch filepath.Ext(file) {
	case ".xz":
		data, err = unpackData("xz", data)
	case ".zst":
		data, err = unpackData("zstd", data)
	}
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	return data, nil
}

// moduleDepends reads the dependencies that a module itself names, so that no depmod is needed.
func moduleDepends(data []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		value, ok := strings.CutPrefix(string(field), "depends=")
		if ok && value != "" {
			return strings.Split(strings.ReplaceAll(value, "-", "_"), ","), nil
		}
	}
	return nil, nil
}
