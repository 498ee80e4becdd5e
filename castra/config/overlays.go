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
	abs, _ := l.path(t, "overlay", s)
	if st, err := os.Stat(abs); err == nil && st.IsDir() {
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
	uses := map[string]string{realPath(l.p.File): FileName}
	for i, vm := range l.p.VMs {
		use := func(file, what string) {
			if file != "" {
				uses[realPath(file)] = fmt.Sprintf("the %s of %s on line %d", what, l.paths[i], vm.Line)
			}
		}
		use(vm.Kernel, "kernel")
		use(vm.Initrd, "initrd")
		use(vm.SSH.Identity, "identity")
		use(vm.Bootstrap.Script, "script")
		use(vm.Bootstrap.Payload, "payload")
		use(vm.BaseImage, "base image")
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
		key := l.paths[i] + ".overlay"
		if use, ok := uses[file]; ok {
			l.f.add(key, fmt.Sprintf("%s is %s, and down would delete it", vm.Overlay, use), help)
		}
		if other, ok := owners[file]; ok {
			l.f.add(key, fmt.Sprintf("%s is the overlay of %s on line %d too", vm.Overlay, l.paths[other], l.p.VMs[other].Line), help)
			continue
		}
		owners[file] = i
	}
}
