package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// workspacePrefix begins overlays that lie in the workspace, wherever that is.
const workspacePrefix = ".castra/"

func (l *loader) overlay(t *table) string {
	const help = "write the path of a file that ends in .qcow2, or leave overlay out"
	s, ok := t.filled("overlay", help)
	if !ok {
		return ""
	}
	clean := filepath.Clean(s)
	switch {
	case strings.HasSuffix(s, "/"), slices.Contains([]string{".", "..", "/", ".castra"}, filepath.Base(clean)):
		t.fault("overlay", fmt.Sprintf("%q is a directory", shorten(s)), help)
		return ""
	case strings.HasPrefix(clean, workspacePrefix) && filepath.Ext(clean) != ".qcow2":
		t.fault("overlay", fmt.Sprintf("%q does not end in .qcow2, as all overlays in the workspace do", shorten(s)), help)
		return ""
	case strings.HasPrefix(clean, workspacePrefix):
		return clean
	case strings.HasPrefix(s, workspacePrefix):
		t.fault("overlay", fmt.Sprintf("%q leads out of the workspace", shorten(s)), "write the path without ..")
		return ""
	}
	abs, _ := t.resolve("overlay", s)
	if st, err := os.Stat(abs); err == nil && st.IsDir() && !l.recorded {
		t.fault("overlay", abs+" is a directory", help)
		return ""
	}
	return abs
}

// numbered puts an index before a file's extension.
func numbered(path string, i int) string {
	if path == "" {
		return ""
	}
	ext := filepath.Ext(path)
	return fmt.Sprintf("%s-%d%s", strings.TrimSuffix(path, ext), i, ext)
}

// checkOverlays refuses a file that two VMs would write to, and one that the
// project has for something else.
func (l *loader) checkOverlays() {
	if l.recorded {
		return
	}
	uses := map[string]string{realPath(l.p.File): FileName}
	for i, vm := range l.p.VMs {
		use := func(file, key, what string) {
			if file != "" {
				uses[realPath(file)] = fmt.Sprintf("the %s of %s", what, l.owner(i, key))
			}
		}
		use(vm.Kernel, "kernel", "kernel")
		use(vm.Initrd, "initrd", "initrd")
		use(vm.SSH.Identity, "ssh", "identity")
		if script := vm.Bootstrap.Script; script != "" {
			use(script, "bootstrap", "script")
			use(filepath.Join(filepath.Dir(script), besideName), "bootstrap", besideName)
		}
		use(vm.Bootstrap.Payload, "bootstrap", "payload")
		use(vm.BaseImage, "base_image", "base image")
		use(vm.UserData, "user_data", "user_data")
	}
	const help = "give the overlay a path of its own, or leave it out"
	owners := map[string]int{}
	for i, vm := range l.p.VMs {
		if vm.Overlay == "" {
			continue
		}
		file := vm.Overlay
		if rest, inside := strings.CutPrefix(file, workspacePrefix); inside && l.p.StateDir != "" {
			file = filepath.Join(l.p.StateDir, rest)
		}
		if filepath.IsAbs(file) {
			file = realPath(file)
		}
		key := l.places[i].owner("overlay") + ".overlay"
		if use, ok := uses[file]; ok {
			l.f.add(key, fmt.Sprintf("%s is %s, and down would delete it", vm.Overlay, use), help)
		}
		if other, ok := owners[file]; ok {
			l.f.add(key, fmt.Sprintf("%s is the overlay of %s too", vm.Overlay, l.owner(other, "overlay")), help)
			continue
		}
		owners[file] = i
	}
}

// owner names the table that gives the i-th VM a key, and its line.
func (l *loader) owner(i int, key string) string {
	path := l.places[i].owner(key)
	return fmt.Sprintf("%s on line %d", path, l.f.lines.of(path))
}
