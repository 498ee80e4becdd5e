package bootstrap

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

var modes = []string{"skip", "auto", "always"}

// ParseOverride reads the value of CASTRA_BOOTSTRAP: a mode for all VMs
// ("skip"), modes for some ("web=always,db-1=skip"), or both
// ("skip,web=always"). roleOf gives the role of every VM by name. A role
// means all its replicas; a VM's own entry goes before its role's, and that
// before the mode for all. The result holds the VMs that are overridden; nil
// for an empty value. All faults are reported at once.
func ParseOverride(value string, roleOf map[string]string) (map[string]string, error) {
	if strings.TrimSpace(value) == "" {
		return nil, nil
	}
	given := map[string]string{} // by VM, by role, or "" for all
	var faults []error
	for item := range strings.SplitSeq(value, ",") {
		name, mode, named := strings.Cut(strings.TrimSpace(item), "=")
		name, mode = strings.TrimSpace(name), strings.TrimSpace(mode)
		if !named {
			name, mode = "", name
		}
		_, twice := given[name]
		switch {
		case !slices.Contains(modes, mode):
			faults = append(faults, fmt.Errorf("%q: mode %q is not one of %s", item, mode, strings.Join(modes, ", ")))
		case named && !known(name, roleOf):
			faults = append(faults, fmt.Errorf("%q: no VM or role is called %q; there are %s", item, name, listNames(roleOf)))
		case twice:
			faults = append(faults, fmt.Errorf("%q: given twice", item))
		}
		given[name] = mode
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("CASTRA_BOOTSTRAP: %w", errors.Join(faults...))
	}
	overrides := map[string]string{}
	for vm, role := range roleOf {
		for _, name := range []string{"", role, vm} {
			if mode, ok := given[name]; ok {
				overrides[vm] = mode
			}
		}
	}
	return overrides, nil
}

func known(name string, roleOf map[string]string) bool {
	if _, ok := roleOf[name]; ok {
		return true
	}
	return slices.Contains(slices.Collect(maps.Values(roleOf)), name)
}

func listNames(roleOf map[string]string) string {
	names := slices.Collect(maps.Keys(roleOf))
	names = append(names, slices.Collect(maps.Values(roleOf))...)
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
