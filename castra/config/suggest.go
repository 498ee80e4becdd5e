package config

import (
	"fmt"
	"strings"
)

// suggestion is the help for an unknown key among known ones, in a file with
// these places of keys.
func suggestion(key string, known []string, places map[string]string) string {
	near := nearest(key, known)
	switch place := places[key]; {
	case place != "":
		return "it belongs under " + place
	case near == "":
		return "known here: " + strings.Join(known, ", ")
	case strings.EqualFold(key, near):
		return fmt.Sprintf("keys are in lower case: write %s", near)
	default:
		return fmt.Sprintf("did you mean %s?", near)
	}
}

// places are the tables of castra.toml where keys are looked for first.
var places = map[string]string{
	"state_dir": "[project]",

	"warm": "[project] or [[vms]]",

	"graceful_shutdown_wait_secs": "[lifecycle]", "sigterm_wait_secs": "[lifecycle]", "sigkill_wait_secs": "[lifecycle]",

	"cpus": "[[vms]]", "memory": "[[vms]]", "count": "[[vms]]", "image": "[[vms]]", "base_image": "[[vms]]", "overlay": "[[vms]]",
	"kernel": "[[vms]]", "initrd": "[[vms]]", "append": "[[vms]]", "port_forwards": "[[vms]]",
	"network": "[[vms]]", "firmware": "[[vms]]", "machine": "[[vms]]", "cpu": "[[vms]]", "checksum": "[[vms]]", "instances": "[[vms]]",
	"disk": "[[vms]]", "user_data": "[[vms]]", "arch": "[[vms]]",

	"guest": "[[vms.port_forwards]]", "host": "[[vms.port_forwards]]", "host_ip": "[[vms.port_forwards]]", "protocol": "[[vms.port_forwards]]",

	"user": "[vms.ssh]", "identity": "[vms.ssh]",

	"script": "[vms.bootstrap]", "payload": "[vms.bootstrap]", "verify_command": "[vms.bootstrap]", "verify_path": "[vms.bootstrap]",
}

func nearest(key string, known []string) string {
	return Nearest(strings.NewReplacer("-", "_", " ", "_").Replace(key), known)
}

// Nearest is the known name that was most likely meant: at most two letters
// away, or the beginning of one another. "" where there is none.
func Nearest(name string, known []string) string {
	const tooFar, longest = 3, 40
	if len(name) > longest {
		return ""
	}
	folded := strings.ToLower(name)
	best, least := "", tooFar
	for _, name := range known {
		d := distance(folded, name)
		if d >= tooFar && min(len(folded), len(name)) >= 3 && (strings.HasPrefix(name, folded) || strings.HasPrefix(folded, name)) {
			d = tooFar - 1
		}
		if d < least && d < max(len(folded), len(name))-1 {
			best, least = name, d
		}
	}
	return best
}

// distance is the number of letters to add, drop or change to get from a to b
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
